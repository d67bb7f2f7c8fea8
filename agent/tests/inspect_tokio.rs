//! The inspect stage against a real tokio program, built here as a user would ship it: release profile, default settings.

use std::any::Any;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent::inspect::{FutureName, InspectError, SiteCost, SiteError, TaskKind, TokioHook, TokioImage, inspect};

const PROGRAM: &str = include_str!("fixtures/tokio_tasks/main.rs.txt");
const MANIFEST: &str = r#"
[package]
name = "tasks"
version = "0.0.0"
edition = "2024"
[dependencies]
tokio = { version = "1.54", features = ["rt-multi-thread", "time"] }
[workspace]
"#;

/// Leaves an equal file alone, so that two tests may share a build.
fn write(path: PathBuf, text: &str) {
    if std::fs::read_to_string(&path).ok().as_deref() != Some(text) {
        std::fs::write(path, text).expect("a file");
    }
}

fn build(name: &str, flags: &str, profile: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(dir.join("src")).expect("a directory");
    write(dir.join("Cargo.toml"), &format!("{MANIFEST}{profile}"));
    write(dir.join("src/main.rs"), PROGRAM);
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--target-dir", "target"])
        .current_dir(&dir)
        .env("RUSTFLAGS", flags)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .expect("cargo");
    assert!(status.success());
    dir.join("target/release/tasks")
}

fn tokio_image(path: &Path) -> (Vec<u8>, Box<TokioImage>) {
    let bytes = std::fs::read(path).expect("the binary");
    let image: Box<dyn Any> = inspect(&bytes).expect("an image").expect("a runtime");
    (bytes, image.downcast().expect("tokio"))
}

/// The program's own tasks: future and scheduler, in the legacy mangling's way of writing.
fn own_tasks(image: &TokioImage) -> BTreeSet<String> {
    let own = image.vtables.iter().filter_map(|v| match &v.future {
        FutureName::Known(name) if name.contains("tasks::") => Some((name, v)),
        _ => None,
    });
    own.map(|(name, v)| {
        let name = name
            .replace("{closure#0}", "{{closure}}")
            .replace("<tasks::jobs::Job<u32>>", "tasks::jobs::Job<u32>");
        let name = name.replace(
            "<tasks::jobs::Job<alloc::string::String>>",
            "tasks::jobs::Job<alloc::string::String>",
        );
        let scheduler = v.scheduler.as_deref().expect("a scheduler");
        let short = ["multi_thread", "current_thread", "BlockingSchedule"]
            .into_iter()
            .find(|s| scheduler.contains(s));
        format!("{name} on {} {:?}", short.expect("a known scheduler"), v.kind)
    })
    .collect()
}

fn expected_tasks() -> BTreeSet<String> {
    let mut tasks = BTreeSet::from(["tasks::all::{{closure}}::{{closure}} on BlockingSchedule Blocking".to_owned()]);
    for scheduler in ["multi_thread", "current_thread"] {
        for future in [
            "recompute_forecast",
            "ticker",
            "jobs::Job<u32>::run",
            "jobs::Job<alloc::string::String>::run",
        ] {
            tasks.insert(format!("tasks::{future}::{{{{closure}}}} on {scheduler} Async"));
        }
    }
    tasks
}

fn check(bytes: &[u8], image: &TokioImage) {
    assert_eq!(image.version.as_deref().map(|v| v.starts_with("1.")), Some(true));
    assert_eq!((image.header.vtable_offset, image.rejected_vtables), (16, 0));
    assert_eq!(own_tasks(image), expected_tasks());
    for site in image
        .hooks
        .values()
        .flatten()
        .flatten()
        .chain(image.polls.iter().flat_map(|p| &p.site))
    {
        let at = site.file_offset as usize;
        assert_eq!(&bytes[at..at + site.bytes.len()], site.bytes, "{site:?}");
        assert_eq!(site.cost, SiteCost::Emulated, "{site:?}");
    }
    for vtable in &image.vtables {
        assert!(image.polls.iter().any(|p| p.poll_fn == vtable.poll));
        assert!(
            vtable.kind == TaskKind::Blocking || vtable.id_offset == 0x28,
            "{vtable:?}"
        );
    }
}

#[test]
fn a_default_build_is_known_whole() {
    // The default is the legacy mangling in stable compilers so far (asking for it by name takes a nightly one).
    for (name, flags) in [("tokio-default", ""), ("tokio-v0", "-Csymbol-mangling-version=v0")] {
        let (bytes, image) = tokio_image(&build(name, flags, ""));
        check(&bytes, &image);
        for hook in TokioHook::ALL {
            let sites = &image.hooks[&hook];
            let expected = match hook {
                TokioHook::Schedule | TokioHook::Park => 2,
                // tokio's own closures on the blocking pool have inlined it.
                TokioHook::Spawn | TokioHook::PollBegin => sites.len(),
                _ => 1,
            };
            assert_eq!(
                (sites.len(), sites.iter().filter(|s| s.is_ok()).count()),
                (expected, expected),
                "{hook:?} {sites:?}"
            );
        }
        let inlined = image
            .vtables
            .iter()
            .filter(|v| !(v.calls_poll_begin && v.calls_poll_end));
        for vtable in inlined {
            let name = vtable.future.label().unwrap_or_default();
            assert!(
                vtable.kind == TaskKind::Blocking && name.contains("tokio::"),
                "{vtable:?}"
            );
        }
        let pending = image.hooks[&TokioHook::PollEndPending][0].as_ref().expect("a site");
        assert!(pending.may_repeat, "it stands in a compare-and-swap loop");
    }
}

#[test]
fn a_static_build_is_known_whole() {
    let (bytes, image) = tokio_image(&build("tokio-static", "-Ctarget-feature=+crt-static", ""));
    assert!(image.elf.is_static);
    check(&bytes, &image);
}

#[test]
fn with_lto_polls_begin_at_each_types_own_function() {
    for (name, lto) in [
        ("tokio-lto", "lto = \"fat\"\ncodegen-units = 1\n"),
        ("tokio-thin", "lto = \"thin\"\n"),
    ] {
        let (bytes, image) = tokio_image(&build(name, "", &format!("[profile.release]\n{lto}")));
        check(&bytes, &image);
        let begins: BTreeSet<u64> = image.hooks[&TokioHook::PollBegin]
            .iter()
            .flatten()
            .map(|s| s.vaddr)
            .collect();
        let polls: BTreeSet<u64> = image.polls.iter().flat_map(|p| &p.site).map(|s| s.vaddr).collect();
        assert_eq!(begins, polls);
        assert!(image.vtables.iter().all(|v| !v.calls_poll_end));
        assert!(image.hooks[&TokioHook::Schedule].iter().filter(|s| s.is_ok()).count() >= 2);
        assert!(image.returns.len() >= 3 && image.returns.iter().all(Result::is_ok));
    }
}

/// Where a build's futures are in its source, for each type of tasks, and how many tasks are closures.
fn places(image: &TokioImage) -> (Vec<String>, usize) {
    let (tasks, closures): (Vec<_>, Vec<_>) = image.vtables.iter().partition(|v| v.kind == TaskKind::Async);
    let mut names: Vec<String> = tasks.iter().map(|v| v.future.to_string()).collect();
    names.sort();
    (names, closures.len())
}

/// Begin and size of each function in which a scheduler runs a task, unless the compiler put it into others.
fn run_task(path: &Path) -> Vec<(u64, u64)> {
    let output = Command::new("nm").args(["-S", "--defined-only"]).arg(path).output();
    let output = output.expect("nm of binutils");
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter(|line| line.contains("Context8run_task"));
    let number = |word: &str| u64::from_str_radix(word, 16).expect("a number");
    lines
        .map(|line| {
            let mut words = line.split_whitespace().map(number);
            (words.next().expect("an address"), words.next().expect("a size"))
        })
        .collect()
}

fn strip(path: &Path, arguments: &[&str]) -> PathBuf {
    let stripped = path.with_extension(format!("stripped{}", arguments.len()));
    let status = Command::new("strip")
        .args(arguments)
        .arg("-o")
        .args([&stripped, path])
        .status()
        .expect("strip of binutils");
    assert!(status.success());
    stripped
}

/// Each build twice: the types, the header, and the places without symbols are those with them.
#[test]
fn a_stripped_build_is_known_by_its_code() {
    let expected: Vec<String> = ["16:44", "25:19", "9:37", "9:37"]
        .into_iter()
        .flat_map(|place| [format!("src/main.rs:{place}"), format!("src/main.rs:{place}")])
        .collect();
    for (name, flags, profile) in [
        ("tokio-default", "", ""),
        ("tokio-static", "-Ctarget-feature=+crt-static", ""),
        ("tokio-v0", "-Csymbol-mangling-version=v0", ""),
        ("tokio-lto", "", "[profile.release]\nlto = \"fat\"\ncodegen-units = 1\n"),
        ("tokio-thin", "", "[profile.release]\nlto = \"thin\"\n"),
        (
            "tokio-small",
            "",
            "[profile.release]\nlto = true\ncodegen-units = 1\npanic = \"abort\"\nopt-level = \"z\"\n",
        ),
        (
            "tokio-fixed",
            "-Crelocation-model=static",
            "[profile.release]\nopt-level = 2\n",
        ),
    ] {
        let path = build(name, flags, profile);
        let (_, twin) = tokio_image(&path);
        let (bytes, image) = tokio_image(&strip(&path, &[]));
        let types = |image: &TokioImage| -> Vec<(u64, u64, TaskKind)> {
            image.vtables.iter().map(|v| (v.vaddr, v.poll, v.kind)).collect()
        };
        assert_eq!(types(&image), types(&twin), "{name}");
        assert_eq!((image.header, image.rejected_vtables), (twin.header, 0), "{name}");
        assert_eq!(places(&image), (expected.clone(), 2), "{name}");
        let sites = image.hooks.iter().flat_map(|(hook, sites)| {
            let found = [TokioHook::PollBegin, TokioHook::Schedule].contains(hook);
            sites.iter().filter(move |_| found)
        });
        for site in sites.chain(&image.returns) {
            let site = site.as_ref().expect("a site");
            let at = site.file_offset as usize;
            assert_eq!(&bytes[at..at + site.bytes.len()], site.bytes, "{name} {site:?}");
            println!("{name} {:#x} {:?} {:?}", site.vaddr, site.cost, site.args);
        }
        // Each scheduler's, and the blocking pool's.
        assert!((3..12).contains(&image.returns.len()), "{name} {:?}", image.returns);
        for (begin, size) in run_task(&path) {
            let mut sites = image.returns.iter().flatten();
            assert!(
                sites.any(|site| (begin..begin + size).contains(&site.vaddr)),
                "{name} {begin:#x} {:?}",
                image.returns
            );
        }
        let others = image.hooks[&TokioHook::Spawn].iter();
        assert!(
            others
                .clone()
                .all(|site| matches!(site, Err(SiteError::NoNames { .. }))),
            "{others:?}"
        );
    }
}

#[test]
fn without_begins_of_functions_a_stripped_build_is_refused() {
    let path = build("tokio-default", "", "");
    let bytes = std::fs::read(strip(&path, &["-R", ".eh_frame_hdr"])).expect("the binary");
    assert_eq!(inspect(&bytes).err(), Some(InspectError::Stripped { runtime: "tokio" }));
}

#[test]
fn other_programs_are_neither() {
    let bytes = std::fs::read("/bin/ls").expect("ls");
    assert!(matches!(inspect(&bytes), Ok(None)));
}

#[test]
fn damaged_binaries_are_errors() {
    let bytes = std::fs::read(build("tokio-default", "", "")).expect("the binary");
    for step in 0..64 {
        let _ = inspect(&bytes[..bytes.len() * step / 64]);
    }
    let mut random = 0x2545_f491_4f6c_dd1du64;
    let mut whole = 0;
    for round in 0..200 {
        let mut damaged = bytes.clone();
        for _ in 0..1 << (round % 12) {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = (random >> 16) as usize % damaged.len();
            // Every fourth round only headers are hit.
            damaged[if round % 4 == 0 { at % 4096 } else { at }] = (random >> 56) as u8;
        }
        whole += usize::from(matches!(inspect(&damaged), Ok(Some(_))));
    }
    assert!(
        whole > 50,
        "only {whole} of the damaged binaries were read at all: the test shows little"
    );
}

/// More names than fit into the agent's memory are an error that says so, and not half of the names.
#[test]
fn too_many_names_are_said() {
    const NAMES: usize = 260_000;
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("names");
    std::fs::create_dir_all(&dir).expect("a directory");
    let (source, library) = (dir.join("names.s"), dir.join("names.so"));
    let text: String = (0..NAMES)
        .map(|nth| {
            let name = format!("tokio_{}_{nth}", "x".repeat(90));
            format!(".type {name}, @function\n{name}: ret\n")
        })
        .collect();
    std::fs::write(&source, text).expect("a file");
    let status = Command::new("cc")
        .args(["-shared", "-nostdlib", "-o"])
        .args([&library, &source])
        .status()
        .expect("a C compiler");
    assert!(status.success());
    let error = inspect(&std::fs::read(&library).expect("the library")).expect_err("too many names");
    assert!(
        matches!(error, InspectError::TooLarge { found, most, .. } if found > most),
        "{error}"
    );
    assert!(error.to_string().contains("names of functions"), "{error}");
}
