use super::*;

struct Expected {
    at: u64,
    cost: SiteCost,
    behind: bool,
    repeats: bool,
}

#[track_caller]
fn check(words: &[u32], arguments: usize, expected: Option<Expected>) {
    let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let needed: Vec<ArgLocation> = (0..arguments as u8).map(ArgLocation::X).collect();
    let site = place("f", &code, 0x1000, &needed).ok();
    let seen = site.map(|site| {
        assert_eq!(site.args.len(), arguments);
        (site.vaddr - 0x1000, site.cost, site.behind_stack_check, site.may_repeat)
    });
    assert_eq!(seen, expected.map(|e| (e.at, e.cost, e.behind, e.repeats)));
}

const LOAD_GUARD: u32 = 0xf940_0b90; // ldr x16, [x28, #16]
const COMPARE: u32 = 0xeb30_63ff; // cmp sp, x16
const BELOW: u32 = 0x5400_0089; // b.ls +16
const PUSH_LR: u32 = 0xf81b_0ffe; // str x30, [sp, #-80]!
const NOP_MOVE: u32 = 0xaa00_03e5; // mov x5, x0
const TAKE_ARGUMENT: u32 = 0xaa05_03e0; // mov x0, x5
const CALL: u32 = 0x9400_0100; // bl
const RETURN: u32 = 0xd65f_03c0;

fn simulated(at: u64, behind: bool) -> Option<Expected> {
    Some(Expected {
        at,
        cost: SiteCost::Emulated,
        behind,
        repeats: false,
    })
}

#[test]
fn behind_the_stack_check_where_the_arguments_last() {
    check(
        &[LOAD_GUARD, COMPARE, BELOW, PUSH_LR, NOP_MOVE, CALL, RETURN],
        1,
        simulated(20, true),
    );
}

#[test]
fn on_the_stack_check_where_they_do_not() {
    check(
        &[LOAD_GUARD, COMPARE, BELOW, PUSH_LR, TAKE_ARGUMENT, CALL, RETURN],
        1,
        simulated(8, false),
    );
    // sub x17, sp, #16; cmp x17, x16
    let framed = [
        LOAD_GUARD,
        0xd100_43f1,
        0xeb10_023f,
        BELOW,
        PUSH_LR,
        TAKE_ARGUMENT,
        CALL,
    ];
    check(&framed, 1, simulated(12, false));
}

#[test]
fn a_compare_leaves_its_operand() {
    // str x30, [sp, #-32]!; cmp w2, #0x72; b.eq
    check(&[0xf81e_0ffe, 0x7101_c85f, 0x5400_0060, RETURN], 3, simulated(8, false));
}

#[test]
fn a_growing_stack_repeats_what_is_before_its_check() {
    // The way back from morestack: b to the start.
    let words = [LOAD_GUARD, COMPARE, BELOW, PUSH_LR, TAKE_ARGUMENT, RETURN, 0x17ff_fffa];
    let expected = Expected {
        at: 8,
        cost: SiteCost::Emulated,
        behind: false,
        repeats: true,
    };
    check(&words, 1, Some(expected));
}

#[test]
fn never_between_an_exclusive_load_and_its_store() {
    // ldaxr x5, [x1]; cbnz x5, …
    let expected = Expected {
        at: 0,
        cost: SiteCost::SingleStepped,
        behind: false,
        repeats: false,
    };
    check(&[PUSH_LR, 0xc85f_fc25, 0xb500_0045, RETURN], 1, Some(expected));
    check(&[0xc85f_fc25, 0xb500_0045, RETURN], 1, None);
}

#[test]
fn refused_and_undecodable() {
    // ldr x5, literal; svc #0; msr nzcv, x0: no place, and nothing simulated before x0 is lost.
    for first in [0x5800_0045, 0xd400_0001, 0xd51b_4200] {
        check(&[first, TAKE_ARGUMENT, CALL], 1, None);
    }
    check(&[0], 1, None);
    check(&[], 1, None);
}

#[test]
fn references_by_page_and_offset() {
    let words: [u32; 8] = [
        0x9000_0001, // adrp x1, this page
        0x9104_0022, // add x2, x1, #256
        0xf940_0443, // ldr x3, [x2, #8]
        0xb900_1023, // str w3, [x1, #16]
        0xa940_1444, // ldp x4, x5, [x2]
        0xc81b_fc43, // stlxr w27, x3, [x2]
        0xf940_0083, // ldr x3, [x4]: a pointer that was read
        0xf100_a47f, // cmp x3, #41
    ];
    let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let found = references(&code, 0x5004);
    assert_eq!(found.addresses, [0x5100]);
    assert_eq!(
        found.values,
        [(0x5108, 8), (0x5010, 4), (0x5100, 8), (0x5108, 8), (0x5100, 8)]
    );
    assert_eq!(found.compared, Some(41));
}
