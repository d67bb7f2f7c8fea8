//! The size of each kernel program, against docs/bench/programs.md: what a hit costs, as far as no clock is needed to see it.

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

use super::kernel::OBJECT;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/bench/programs.md");
/// What another toolchain may make of the same source, or a small change.
const TOLERANCE: f64 = 1.10;
const SLACK: u64 = 8;

/// The section of functions that several programs call, and what the page says of them.
const SHARED: &str = ".text";

/// Instructions by program, and in functions that programs share.
fn programs() -> Vec<(String, u64)> {
    let file = object::File::parse(OBJECT).unwrap();
    let mut programs: Vec<(String, u64)> = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_global() && symbol.size() > 0)
        .filter(|symbol| {
            let section = symbol
                .section_index()
                .and_then(|index| file.section_by_index(index).ok());
            section.is_some_and(|section| section.name() != Ok(SHARED))
        })
        .map(|symbol| (symbol.name().unwrap().to_owned(), symbol.size() / 8))
        .collect();
    let shared = file.section_by_name(SHARED).map_or(0, |section| section.size() / 8);
    programs.push((SHARED.to_owned(), shared));
    programs.sort();
    programs
}

/// Linux 5.10 knows one atomic instruction, an addition that gives nothing back; the compiler turns to others where it may.
#[test]
fn atomics_are_those_of_the_oldest_kernel() {
    // BPF_STX | BPF_ATOMIC, of 64 and 32 bits (linux, Documentation/bpf/standardization/instruction-set.rst); the operation is in imm.
    const ATOMIC: [u8; 2] = [0xdb, 0xc3];
    const ADD: i32 = 0;
    let file = object::File::parse(OBJECT).unwrap();
    let sections = file
        .sections()
        .filter(|section| section.kind() == object::SectionKind::Text);
    let mut seen = 0;
    for section in sections {
        for (at, instruction) in section.data().unwrap().as_chunks::<8>().0.iter().enumerate() {
            if ATOMIC.contains(&instruction[0]) {
                seen += 1;
                let operation = i32::from_le_bytes([instruction[4], instruction[5], instruction[6], instruction[7]]);
                assert_eq!(operation, ADD, "{}, instruction {at}", section.name().unwrap());
            }
        }
    }
    assert!(seen > 100, "{seen}");
}

fn page(programs: &[(String, u64)]) -> String {
    let mut page = "# Size of the kernel programs\nNumber of instructions in the object, before the kernel translates them; `.text` are the functions that programs call. A test fails if a \
         program grows by more than a tenth. If the growth is justified, `UPDATE_DOCS=1 cargo test -p agent --lib object_tests` \
         updates this page.\n\n| program | instructions |\n|---|---|\n"
        .to_owned();
    for (name, instructions) in programs {
        page += &format!("| `{name}` | {instructions} |\n");
    }
    page
}

#[test]
fn no_program_grows_unnoticed() {
    let programs = programs();
    assert!(programs.len() > 20, "{programs:?}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PAGE, page(&programs)).unwrap();
    }
    let text = std::fs::read_to_string(PAGE).unwrap();
    let known = |name: &str| {
        let row = text.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        row.and_then(|row| row.split('|').nth(2)?.trim().parse::<u64>().ok())
    };
    for (name, instructions) in &programs {
        let Some(known) = known(name) else {
            panic!("{name} is not in docs/bench/programs.md: run this test with UPDATE_DOCS=1");
        };
        let most = (known as f64 * TOLERANCE) as u64 + SLACK;
        assert!(
            *instructions <= most,
            "{name} has {instructions} instructions, {known} in docs/bench/programs.md"
        );
    }
    let rows = text.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(
        rows,
        programs.len(),
        "docs/bench/programs.md lists programs that are gone"
    );
}
