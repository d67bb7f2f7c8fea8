//! bpf-linker tells LLVM to copy memory in order, and with that never to set it in line: a call of memset writes one byte a turn of its loop,
//! of some five instructions, and the verifier follows each turn (LLVM, BPFISelLowering.cpp, MaxStoresPerMemset).

fn main() {
    println!("cargo::rustc-link-arg-bins=--disable-expand-memcpy-in-order");
}
