//! For tests of what comes after inspection: a Go executable in which everything was found.

use std::collections::BTreeMap;

use super::{GoGlobals, GoImage, GoSymbolizer, buildinfo::GoVersion, hooks::GoHook, layouts};
use crate::inspect::{Arch, ElfFacts, ElfKind, GlobalsSource, OffsetsSource, ProbeSite, SiteCost, TlsG, TlsProof};

impl GoImage {
    /// A stripped one of a minor version that the table of offsets has, for linux/amd64.
    pub fn sample(minor: u32) -> Self {
        let arch = Arch::Amd64;
        let version = GoVersion {
            major: 1,
            minor,
            patch: 1,
            is_release: true,
            experiments: Vec::new(),
            raw: format!("go1.{minor}.1"),
        };
        let site = |(index, hook): (usize, GoHook)| {
            let site = ProbeSite {
                function: hook.candidates()[0].to_owned(),
                vaddr: 0x1000 + 0x100 * index as u64,
                file_offset: 0x100 * index as u64,
                bytes: vec![0x55],
                cost: SiteCost::Emulated,
                behind_stack_check: true,
                may_repeat: false,
                args: hook.needed(arch),
            };
            (hook, Ok(site))
        };
        Self {
            elf: ElfFacts {
                kind: ElfKind::Exec,
                machine: object::elf::EM_X86_64.0,
                gnu_build_id: None,
                go_build_id: None,
                segments: Vec::new(),
                is_static: true,
            },
            arch,
            module: None,
            cgo: false,
            stripped: true,
            offsets: layouts::of_release(&version, "amd64"),
            offsets_source: OffsetsSource::Table,
            globals: Ok(globals()),
            globals_source: GlobalsSource::Code,
            sites: GoHook::ALL
                .into_iter()
                .enumerate()
                .map(site)
                .collect::<BTreeMap<_, _>>(),
            tls_g: Ok(TlsG {
                offset: -8,
                proof: TlsProof::Displacement,
            }),
            symbols: GoSymbolizer::empty(),
            version,
        }
    }
}

fn globals() -> GoGlobals {
    let at = Some(0x9000);
    GoGlobals {
        sched: 0x8000,
        work: 0x8100,
        memstats: 0x8200,
        gc_controller: 0x8300,
        allglen: 0x8400,
        allgs: 0x8500,
        allp: 0x8600,
        gomaxprocs: 0x8700,
        build_version: 0x8800,
        gcphase: 0x8900,
        iscgo: 0x8a00,
        size_class_to_size: 0x8b00,
        tlsg: None,
        wait_reason_strings: None,
        heap: at,
        sweep: at,
        scavenge: at,
        limiter: at,
        allm: at,
        c_calls: at,
    }
}
