//! Inspecting an executable takes little memory, whatever it holds: the agent has 64 MiB for all it does.

#[path = "common/go_build.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod go_build;
#[path = "common/peak.rs"]
mod peak;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use agent::inspect::{GoImage, Image, InspectError, inspect_file};
use go_build::build;
use peak::peak;

const MIB: u64 = 1 << 20;
/// The agent has some beside it.
const MOST: u64 = 56 * MIB;

/// A Go executable of a version that nobody knows, so that its DWARF is read, with these contents of it.
fn with_dwarf(name: &str, info: &[u8], abbreviations: &[u8], packed: Option<&str>) -> PathBuf {
    let plain = build(name, "local", &[], &[("CGO_ENABLED", "0")]);
    let folder = plain.parent().unwrap();
    let (info_file, abbreviations_file, made) = (folder.join("info"), folder.join("abbrev"), folder.join("made"));
    fs::write(&info_file, info).unwrap();
    fs::write(&abbreviations_file, abbreviations).unwrap();
    objcopy(&["--decompress-debug-sections"], &plain, &made);
    let set = |section: &str, file: &Path| format!("--update-section={section}={}", file.display());
    let sections = [
        set(".debug_info", &info_file),
        set(".debug_abbrev", &abbreviations_file),
    ];
    objcopy(&sections.each_ref().map(String::as_str), &made, &made);
    if let Some(format) = packed {
        objcopy(&[&format!("--compress-debug-sections={format}")], &made, &made);
    }
    let mut bytes = fs::read(&made).unwrap();
    let version = Command::new("go")
        .args(["env", "GOVERSION"])
        .env("GOTOOLCHAIN", "local")
        .output()
        .unwrap();
    let version = String::from_utf8(version.stdout).unwrap().trim().to_owned();
    let (_, minor) = version.split_once('.').unwrap();
    let other = format!("go1.99{}", &minor[2..]);
    let places: Vec<usize> = memchr::memmem::find_iter(&bytes, version.as_bytes()).collect();
    for at in places {
        bytes[at..at + version.len()].copy_from_slice(other.as_bytes());
    }
    fs::write(&made, bytes).unwrap();
    made
}

fn objcopy(options: &[&str], from: &Path, to: &Path) {
    let status = Command::new("objcopy").args(options).args([from, to]).status();
    assert!(status.expect("objcopy of binutils").success());
}

/// So many bytes of units that hold nothing: 12 each, of DWARF 4.
fn small_units(size: u64) -> Vec<u8> {
    let unit = [8, 0, 0, 0, 4, 0, 0, 0, 0, 0, 8, 1];
    unit.repeat(size as usize / unit.len())
}

/// A number as DWARF writes it.
fn leb128(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A unit's root, without attributes and children.
const ROOT: [u8; 6] = [1, 0x11, 0, 0, 0, 0];

type Found = Result<Option<Box<dyn Image>>, InspectError>;

#[track_caller]
fn check(path: &Path, most: u64, is_expected: impl Fn(&Found) -> bool) {
    let file = File::open(path).unwrap();
    agent::heap::give_back();
    let mut found = None;
    let took = peak(|| found = Some(inspect_file(&file)));
    let found = found.unwrap();
    println!("{}: {} KiB of memory", path.display(), took >> 10);
    assert!(is_expected(&found), "{found:?}");
    assert!(took < most, "{took} bytes for {}", path.display());
}

/// One test, as the peak is the whole process'.
#[test]
fn it_takes_little_memory() {
    let of_go = |image: &dyn Image| {
        image
            .downcast_ref::<GoImage>()
            .is_some_and(|image| image.offsets.is_err())
    };
    let is_refused = |found: &Found| matches!(found, Ok(Some(image)) if of_go(&**image));
    let units = with_dwarf("units", &small_units(24 * MIB), &ROOT, None);
    check(&units, MOST, is_refused);
    // A table of a million abbreviations, for one unit.
    let table: Vec<u8> = (1..1 << 20)
        .flat_map(|code| [&leb128(code)[..], &ROOT[1..5]].concat())
        .collect();
    let table = with_dwarf("table", &small_units(12), &table, None);
    check(&table, MOST, is_refused);
    // Noise, which is packed to next to as many bytes.
    let mut random = 1u64;
    let noise = std::iter::repeat_with(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 56) as u8
    });
    let mut noise: Vec<u8> = noise.take(28 << 20).collect();
    // What is not smaller is not packed at all.
    noise.resize(31 << 20, 0);
    let packed = with_dwarf("packed", &noise, &ROOT, Some("zlib"));
    check(&packed, MOST, is_refused);
}
