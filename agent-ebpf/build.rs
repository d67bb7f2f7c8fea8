//! By default bpf-linker makes LLVM copy memory in order, which also keeps it from writing memset in line (LLVM, BPFISelLowering.cpp, MaxStoresPerMemset): a call writes
//! one byte a turn of a loop of five instructions, and the verifier follows each turn.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "bpf") {
        println!("cargo::rustc-link-arg-bins=--disable-expand-memcpy-in-order");
    }
}
