//! Global variables of a stripped binary, from the instructions of functions that refer to them.
//!
//! pclntab names every function, stripped or not. A [`Witness`] is a function and how it refers to the variable; each gives
//! the addresses that it may mean, and the variable is at the one that all of them share, in a section where the linker puts
//! such a variable. At least two must testify, or one where what stands there proves it. The functions and what they do: go1.18
//! to go1.27, src/runtime, the file is named at each variable. What was found is proved again in the live process
//! (`runtime/go/proof.rs`).

mod rules;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind};

use super::super::InspectError;
use super::super::arch::Arch;
use super::super::elf::Binary;
use super::super::site::a64;
use super::buildinfo::GoVersion;
use super::dwarf::FieldLoc;
use super::globals::{GoGlobals, Table};
use super::offsets::GoOffsets;
use super::pclntab::GoSymbolizer;
use rules::Sight::{self, Address, Fields, Slice, Value, Word};
use rules::{
    ALLGLEN, ALLGS, ALLM, ALLP, BUILD_VERSION, C_CALLS, GC_CONTROLLER, GCPHASE, GOMAXPROCS, HEAP, ISCGO, LIMITER,
    MEMSTATS, RULES, Rule, SCAVENGE, SCHED, SIZE_CLASSES, SWEEP, WAIT_REASON_STRING, WAIT_REASONS, WORK, Witness,
};

/// All of [`GoGlobals`] from code; the error names the first variable that is not found.
pub(super) fn find(
    binary: &Binary<'_>,
    arch: Arch,
    symbols: &GoSymbolizer,
    offsets: &GoOffsets,
    version: &GoVersion,
) -> Result<GoGlobals, InspectError> {
    let code = Code::read(binary, arch, symbols);
    let one = |rule: &Rule, is_so: &dyn Fn(u64) -> bool, least: usize| {
        let found = code.find(binary, offsets, rule, is_so, least);
        found.map_err(|reason| InspectError::NotFound {
            what: rule.variable,
            reason,
        })
    };
    let any = |rule: &Rule| one(rule, &|_| true, 2);
    let names_version = |at: u64| string(binary, at).is_some_and(|text| text == version.raw.as_bytes());
    let begins_with_sizes = |at: u64| binary.read(at, 6).is_some_and(|sizes| sizes == [0, 0, 8, 0, 16, 0]);
    Ok(GoGlobals {
        sched: any(&SCHED)?,
        work: any(&WORK)?,
        memstats: any(&MEMSTATS)?,
        gc_controller: any(&GC_CONTROLLER)?,
        allglen: any(&ALLGLEN)?,
        allgs: any(&ALLGS)?,
        allp: any(&ALLP)?,
        gomaxprocs: any(&GOMAXPROCS)?,
        build_version: one(&BUILD_VERSION, &names_version, 1)?,
        gcphase: any(&GCPHASE)?,
        iscgo: any(&ISCGO)?,
        size_class_to_size: one(&SIZE_CLASSES, &begins_with_sizes, 1)?,
        tlsg: None,
        // Only names hang on it: without them reasons are numbers.
        wait_reason_strings: any(&WAIT_REASONS).ok().and_then(|address| {
            let size = code.wait_reasons?.checked_mul(16)?;
            // Each has a name; the first is empty.
            let last = address.checked_add(size)?.checked_sub(16)?;
            (string(binary, address)?.is_empty() && string(binary, last).is_some()).then_some(Table { address, size })
        }),
        // Without one of them its own figures are absent, and the plan says so.
        heap: any(&HEAP).ok(),
        sweep: any(&SWEEP).ok(),
        scavenge: any(&SCAVENGE).ok(),
        limiter: any(&LIMITER).ok(),
        allm: any(&ALLM).ok(),
        // NumCgoCall is in few binaries. mexit refers to no other word there, and the process proves it.
        c_calls: one(&C_CALLS, &|at| at % 8 == 0, 1).ok(),
    })
}

/// The functions that testify.
pub(super) fn functions() -> BTreeSet<&'static str> {
    let witnesses = RULES.iter().flat_map(|rule| rule.witnesses);
    witnesses.map(|witness| witness.0).collect()
}

/// What a function refers to: by RIP-relative operands, on arm64 by ADRP and what follows it.
#[derive(Default)]
struct References {
    addresses: HashSet<u64>,
    /// Address and bytes of each operand that is read or written.
    values: HashSet<(u64, usize)>,
}

struct Code {
    functions: HashMap<&'static str, References>,
    /// How many wait reasons there are: what waitReason.String compares with.
    wait_reasons: Option<u64>,
}

impl Code {
    fn read(binary: &Binary<'_>, arch: Arch, symbols: &GoSymbolizer) -> Self {
        let names: Vec<&'static str> = functions().into_iter().collect();
        let mut functions: HashMap<&'static str, References> = HashMap::new();
        let mut wait_reasons = None;
        for (name, ranges) in symbols.functions_named(&binary.file, &names) {
            // An ABI wrapper of the same name refers to none of them.
            let known = functions.entry(name).or_default();
            for range in ranges {
                let first = known.read(binary, arch, range);
                if name == WAIT_REASON_STRING {
                    wait_reasons = wait_reasons.or(first);
                }
            }
        }
        Self {
            functions,
            wait_reasons,
        }
    }

    fn find(
        &self,
        binary: &Binary<'_>,
        offsets: &GoOffsets,
        rule: &Rule,
        is_so: &dyn Fn(u64) -> bool,
        least: usize,
    ) -> Result<u64, String> {
        let sections: Vec<Range<u64>> = rule.sections.iter().filter_map(|name| binary.range_of(name)).collect();
        let mut heard = 0;
        let mut shared: Option<BTreeSet<u64>> = None;
        for Witness(function, sight) in rule.witnesses {
            let Some(references) = self.functions.get(function) else {
                continue;
            };
            let Some(mut said) = references.candidates(*sight, offsets) else {
                continue;
            };
            said.retain(|at| sections.iter().any(|section| section.contains(at)) && is_so(*at));
            heard += 1;
            let left = match shared {
                None => said,
                Some(before) => before.intersection(&said).copied().collect(),
            };
            if left.is_empty() {
                return Err(format!("{function} does not refer to it as known"));
            }
            shared = Some(left);
        }
        if heard < least {
            return Err(format!(
                "{heard} of the functions known to refer to it are in the binary"
            ));
        }
        let shared = shared.unwrap_or_default();
        match shared.first() {
            Some(at) if shared.len() == 1 => Ok(*at),
            _ => Err(format!("{} addresses fit", shared.len())),
        }
    }
}

impl References {
    /// Takes in a function; gives the first immediate that it compares with.
    fn read(&mut self, binary: &Binary<'_>, arch: Arch, range: Range<u64>) -> Option<u64> {
        /// No function of the runtime is longer.
        const LONGEST: u64 = 1 << 16;
        let code = binary.read_up_to(range.start, (range.end - range.start).min(LONGEST))?;
        if arch == Arch::Arm64 {
            let found = a64::references(&code, range.start);
            self.addresses.extend(found.addresses);
            self.values.extend(found.values);
            return found.compared;
        }
        let mut compared = None;
        for i in Decoder::with_ip(64, &code, range.start, DecoderOptions::NONE).iter() {
            if i.is_invalid() {
                break;
            }
            if i.mnemonic() == Mnemonic::Cmp && matches!(i.op1_kind(), OpKind::Immediate8) {
                compared = compared.or(Some(i.immediate(1)));
            }
            if !i.is_ip_rel_memory_operand() {
                continue;
            }
            let at = i.ip_rel_memory_address();
            if i.mnemonic() == Mnemonic::Lea {
                self.addresses.insert(at);
            } else {
                self.values.insert((at, i.memory_size().size()));
            }
        }
        compared
    }

    /// The addresses the variable may have by this; None when this version has none of the fields.
    fn candidates(&self, sight: Sight, offsets: &GoOffsets) -> Option<BTreeSet<u64>> {
        Some(match sight {
            Address => self.addresses.iter().copied().collect(),
            Value(size) => {
                let values = self.values.iter().filter(|(_, read)| *read == size);
                values.map(|(at, _)| *at).collect()
            }
            Word => {
                let referred = self.addresses.iter().chain(self.values.iter().map(|(at, _)| at));
                let whole = |at: &&u64| self.values.iter().all(|(of, size)| of != *at || *size == 8);
                referred.filter(whole).copied().collect()
            }
            Slice => {
                let words = self.values.iter().filter(|(_, size)| *size == 8).map(|(at, _)| *at);
                let next = |at: &u64| at.checked_add(8).is_some_and(|next| self.values.contains(&(next, 8)));
                words.filter(next).collect()
            }
            Fields(fields) => {
                let fields: Vec<FieldLoc> = fields(offsets).into_iter().flatten().collect();
                let first = fields.first()?;
                let referred: HashSet<u64> = self
                    .values
                    .iter()
                    .map(|(at, _)| *at)
                    .chain(self.addresses.iter().copied())
                    .collect();
                let bases = referred.iter().filter_map(|at| at.checked_sub(first.offset));
                bases
                    .filter(|base| base % 8 == 0)
                    .filter(|base| {
                        let places = fields.iter().map(|field| base.checked_add(field.offset));
                        places.flatten().all(|place| referred.contains(&place))
                    })
                    .collect()
            }
        })
    }
}

/// The bytes of the Go string whose header is at `at` in the file.
fn string(binary: &Binary<'_>, at: u64) -> Option<Vec<u8>> {
    const LONGEST: u64 = 256;
    match binary.word(at.checked_add(8)?)? {
        0 => Some(Vec::new()),
        length @ 1..=LONGEST => binary.read(binary.pointer(at)?, length),
        _ => None,
    }
}
