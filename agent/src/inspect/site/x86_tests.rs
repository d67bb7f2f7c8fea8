use super::*;
use crate::inspect::X86Register;
use X86Register::{Rax, Rdi, Rsi};

const START: u64 = 0x1000;

/// Code, needed registers → the site's distance from the start, and its properties.
fn check(
    code: &[u8],
    needed: &[X86Register],
    offset: u64,
    cost: SiteCost,
    behind: bool,
    repeat: bool,
    args: &[ArgLocation],
) {
    let needed: Vec<ArgLocation> = needed.iter().copied().map(ArgLocation::Register).collect();
    let site = place("f", code, START, &needed).expect("a site");
    assert_eq!(
        (
            site.vaddr - START,
            site.cost,
            site.behind_stack_check,
            site.may_repeat,
            &site.args[..]
        ),
        (offset, cost, behind, repeat, args)
    );
    let at = offset as usize;
    assert_eq!(site.bytes, code[at..at + site.bytes.len()]);
}

const IN_RAX: &[ArgLocation] = &[ArgLocation::Register(Rax)];
const IN_RDI: &[ArgLocation] = &[ArgLocation::Register(Rdi)];

#[test]
fn go_function_is_probed_on_the_push_behind_its_stack_check() {
    // cmp rsp, [r14+0x10]; jbe +0x20; push rbp; mov rbp, rsp; ...; the tail calls morestack and jumps to the start
    let mut code = vec![0x49, 0x3b, 0x66, 0x10, 0x76, 0x20, 0x55, 0x48, 0x89, 0xe5, 0xc3];
    code.extend([0xe8, 0, 0, 0, 0, 0xeb, 0xee]);
    check(&code, &[Rax], 6, SiteCost::Emulated, true, false, IN_RAX);
}

#[test]
fn go_118_function_without_a_push_is_probed_on_the_checks_branch() {
    // cmp rsp, [r14+0x10]; jbe; sub rsp, 0x20; mov [rsp+0x18], rbp; ret
    let code = [
        0x49, 0x3b, 0x66, 0x10, 0x76, 0x20, 0x48, 0x83, 0xec, 0x20, 0x48, 0x89, 0x6c, 0x24, 0x18, 0xc3,
    ];
    check(&code, &[Rax], 4, SiteCost::Emulated, false, false, IN_RAX);
}

#[test]
fn large_go_frame_has_two_branches_in_its_check() {
    // mov r12, rsp; sub r12, 0x2000; jb; cmp r12, [r14+0x10]; jbe; push rbp; ret
    let code = [
        0x49, 0x89, 0xe4, 0x49, 0x81, 0xec, 0, 0x20, 0, 0, 0x72, 0x10, 0x4d, 0x3b, 0x66, 0x10, 0x76, 0x0a, 0x55, 0xc3,
    ];
    check(&code, &[Rax], 18, SiteCost::Emulated, true, false, IN_RAX);
}

#[test]
fn endbr64_is_stepped_over() {
    check(
        &[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0xc3],
        &[Rdi],
        4,
        SiteCost::Emulated,
        false,
        false,
        IN_RDI,
    );
    // endbr64; mov rax, [rdi]; xor edi, edi; ret: nothing is emulated, so the first real instruction is stepped
    let code = [0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x8b, 0x07, 0x31, 0xff, 0xc3];
    check(&code, &[Rdi], 4, SiteCost::SingleStepped, false, false, IN_RDI);
}

#[test]
fn terminating_jump_is_a_site_while_the_argument_lives() {
    check(&[0xe9, 0, 1, 0, 0], &[Rdi], 0, SiteCost::Emulated, false, false, IN_RDI);
    // lea rdx, [rip+0]; jmp rel32
    check(
        &[0x48, 0x8d, 0x15, 0, 0, 0, 0, 0xe9, 0, 1, 0, 0],
        &[Rsi],
        7,
        SiteCost::Emulated,
        false,
        false,
        &[ArgLocation::Register(Rsi)],
    );
}

#[test]
fn argument_is_followed_into_another_register() {
    // mov rdx, rsi; mov rsi, [rdi]; jmp rel32
    let code = [0x48, 0x89, 0xf2, 0x48, 0x8b, 0x37, 0xe9, 0, 1, 0, 0];
    check(
        &code,
        &[Rsi],
        6,
        SiteCost::Emulated,
        false,
        false,
        &[ArgLocation::Register(X86Register::Rdx)],
    );
}

#[test]
fn argument_is_followed_onto_the_stack() {
    // sub rsp, 0x28; mov [rsp+0x18], rsi; mov [rsp+0x20], rax; lea rsi, [rip]; call rel32
    let code = [
        0x48, 0x83, 0xec, 0x28, 0x48, 0x89, 0x74, 0x24, 0x18, 0x48, 0x89, 0x44, 0x24, 0x20, 0x48, 0x8d, 0x35, 0, 0, 0,
        0, 0xe8, 0, 1, 0, 0,
    ];
    check(
        &code,
        &[Rsi],
        21,
        SiteCost::Emulated,
        false,
        false,
        &[ArgLocation::Stack(0x18)],
    );
    // the same, but another value overwrites half of the slot
    let mut overwritten = code;
    overwritten[13] = 0x1c;
    check(
        &overwritten,
        &[Rsi],
        0,
        SiteCost::SingleStepped,
        false,
        false,
        &[ArgLocation::Register(Rsi)],
    );
    // mov [rsp+8], rdi; push rax moves the slot: sub rsp,0x18; mov [rsp+8], rdi; xor edi, edi; push rax
    let code = [
        0x48, 0x83, 0xec, 0x18, 0x48, 0x89, 0x7c, 0x24, 8, 0x31, 0xff, 0x50, 0xc3,
    ];
    check(
        &code,
        &[Rdi],
        11,
        SiteCost::Emulated,
        false,
        false,
        &[ArgLocation::Stack(8)],
    );
}

#[test]
fn nothing_behind_the_first_branch_is_used() {
    // test rdi, rdi; je +1; push rbx; ret: the je itself is the site
    check(
        &[0x48, 0x85, 0xff, 0x74, 1, 0x53, 0xc3],
        &[Rdi],
        3,
        SiteCost::Emulated,
        false,
        false,
        IN_RDI,
    );
}

#[test]
fn a_site_within_a_retry_loop_says_so() {
    // mov rax, [rdi]; L: test al, 1; je +9; lock cmpxchg [rdi], rcx; jne L; ret
    let code = [
        0x48, 0x8b, 0x07, 0xa8, 1, 0x74, 9, 0xf0, 0x48, 0x0f, 0xb1, 0x0f, 0x75, 0xf5, 0xc3, 0xcc,
    ];
    check(&code, &[Rdi], 5, SiteCost::Emulated, false, true, IN_RDI);
}

#[test]
fn what_the_kernel_refuses_is_refused() {
    // lock inc qword [rdi]; xor edi, edi; ret
    let code = [0xf0, 0x48, 0xff, 0x07, 0x31, 0xff, 0xc3];
    assert!(matches!(
        place("f", &code, START, IN_RDI),
        Err(SiteError::Refused { .. })
    ));
}

#[test]
fn rubbish_is_an_error() {
    for code in [&[][..], &[0x06][..], &[0x0f][..], &[0x48][..]] {
        assert!(
            matches!(place("f", code, START, IN_RDI), Err(SiteError::Undecodable { .. })),
            "{code:x?}"
        );
    }
}

#[test]
fn a_loop_behind_the_stack_check_is_left_for_the_check_itself() {
    // cmp rsp, [r14+0x10]; jbe; sub rsp, 0x20; L: test rax, rax; jne L; ret
    let code = [
        0x49, 0x3b, 0x66, 0x10, 0x76, 0x20, 0x48, 0x83, 0xec, 0x20, 0x48, 0x85, 0xc0, 0x75, 0xfb, 0xc3,
    ];
    check(&code, &[Rax], 4, SiteCost::Emulated, false, false, IN_RAX);
}

#[test]
fn the_address_that_a_function_returns_to_is_followed_down_the_stack() {
    let check = |code: &[u8], at: u64, above: i32| {
        let site = place("f", code, START, &[ArgLocation::Stack(0)]).expect("a site");
        assert_eq!((site.vaddr - START, site.args), (at, vec![ArgLocation::Stack(above)]));
    };
    // cmp rsp, [r14+0x10]; jbe; push rbp; mov rbp, rsp; ret: nothing was pushed before.
    check(
        &[0x49, 0x3b, 0x66, 0x10, 0x76, 0x20, 0x55, 0x48, 0x89, 0xe5, 0xc3],
        6,
        0,
    );
    // cmp rsp, [r14+0x10]; jbe; sub rsp, 0x20; mov [rsp+0x18], rbp; lea rbp, [rsp+0x18]; test rax, rax; je: as until go1.20.
    let code = [
        0x49, 0x3b, 0x66, 0x10, 0x76, 0x20, 0x48, 0x83, 0xec, 0x20, 0x48, 0x89, 0x6c, 0x24, 0x18, 0x48, 0x8d, 0x6c,
        0x24, 0x18, 0x48, 0x85, 0xc0, 0x74, 0x02, 0x90, 0x90, 0xc3,
    ];
    check(&code, 23, 0x20);
}
