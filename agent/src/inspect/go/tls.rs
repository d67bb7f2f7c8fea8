//! Where a thread's current g is, relative to its TLS base (fsbase), read off the runtime's own code.
//!
//! On linux/amd64 the linker uses -8 when it lays TLS out itself (go1.26, cmd/link/internal/ld/sym.go, `computeTLSOffset`);
//! with external linking the C linker places `runtime.tlsg`. Whichever it was, runtime.morestack begins by loading g from
//! there (runtime/asm_amd64.s, `get_tls(CX); MOVQ g(CX), …`), in one of three forms:
//! `mov reg, fs:[-8]`; `mov rcx, -8; mov reg, fs:[rcx]` (PIE, relaxed); `mov rcx, [rip+slot]; mov reg, fs:[rcx]` (through the
//! GOT, whose slot the loader fills by R_X86_64_TPOFF64).

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

use super::super::SiteError;
use super::super::elf::Binary;
use super::pclntab::GoSymbolizer;

/// Offset of the current g from fsbase, and how it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsG {
    /// Bytes, negative.
    pub offset: i64,
    pub proof: TlsProof,
}

/// Which form the code of runtime.morestack had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsProof {
    /// The offset is the instruction's displacement.
    Displacement,
    /// The offset is an immediate loaded just before.
    Immediate,
    /// The offset is in the GOT; its relocation or link-time content was read.
    GotSlot,
    /// No offset: on arm64 g stays in R28 all the while, but for C code (go1.26, runtime/tls_arm64.s: save_g and load_g do
    /// nothing without cgo).
    Register,
}

pub(super) const FUNCTION: &str = "runtime.morestack";
/// R_X86_64_TPOFF64 (x86-64 psABI, table 4.10).
const TPOFF64: u32 = 18;

/// On arm64: in its register, when no C code can have taken that.
pub(super) fn on_arm64(is_cgo: bool) -> Result<TlsG, SiteError> {
    if is_cgo {
        return Err(SiteError::NotProved {
            function: "runtime.save_g".into(),
            reason: "with cgo on arm64 the register of g may hold a value of C code's".into(),
        });
    }
    Ok(TlsG {
        offset: 0,
        proof: TlsProof::Register,
    })
}

pub(super) fn find(binary: &Binary<'_>, symbols: &GoSymbolizer) -> Result<TlsG, SiteError> {
    let not_proved = |reason: &str| SiteError::NotProved {
        function: FUNCTION.into(),
        reason: reason.into(),
    };
    let found = symbols.functions_named(&binary.file, &[FUNCTION]);
    let range = found
        .get(FUNCTION)
        .and_then(|ranges| ranges.first())
        .ok_or_else(|| SiteError::NoSuchFunction {
            candidates: vec![FUNCTION.into()],
        })?;
    let code = binary.read_up_to(range.start, 256).ok_or_else(|| SiteError::NoCode {
        function: FUNCTION.into(),
        vaddr: range.start,
    })?;
    let instructions: Vec<Instruction> = Decoder::with_ip(64, &code, range.start, DecoderOptions::NONE)
        .iter()
        .take_while(|i| !i.is_invalid())
        .collect();
    let at = instructions
        .iter()
        .position(|i| i.memory_segment() == Register::FS && i.mnemonic() == Mnemonic::Mov)
        .ok_or_else(|| not_proved("no access to TLS near its start"))?;
    let load = &instructions[at];
    let found = if load.memory_base() == Register::None && load.memory_index() == Register::None {
        TlsG {
            offset: i64::from(load.memory_displacement64() as i32),
            proof: TlsProof::Displacement,
        }
    } else {
        let base = load.memory_base();
        let source = instructions[..at]
            .iter()
            .rfind(|i| i.mnemonic() == Mnemonic::Mov && i.op0_register() == base)
            .ok_or_else(|| not_proved("the base of its TLS access isn't set before"))?;
        let (value, proof) = match source.op1_kind() {
            OpKind::Immediate32to64 | OpKind::Immediate64 => (Some(source.immediate(1) as i64), TlsProof::Immediate),
            OpKind::Memory if source.is_ip_rel_memory_operand() => {
                (got_slot(binary, source.ip_rel_memory_address()), TlsProof::GotSlot)
            }
            _ => (None, TlsProof::GotSlot),
        };
        let value = value.ok_or_else(|| not_proved("the offset of g comes from a place that can't be read"))?;
        TlsG {
            offset: value.wrapping_add(load.memory_displacement64() as i64),
            proof,
        }
    };
    // The executable's own TLS block lies directly below the thread pointer (TLS variant II).
    let block = binary.tls.map_or(8, |(size, align)| size.saturating_add(align)).max(8);
    if found.offset >= 0 || found.offset.unsigned_abs() > block || found.offset % 8 != 0 {
        return Err(not_proved(
            "the offset it uses for g lies outside the executable's TLS block",
        ));
    }
    Ok(found)
}

fn got_slot(binary: &Binary<'_>, slot: u64) -> Option<i64> {
    let Some(relocation) = binary.relocation(slot) else {
        return binary.word(slot).map(|offset| offset as i64);
    };
    if relocation.kind != TPOFF64 {
        return None;
    }
    let (size, align) = binary.tls?;
    let block = size.checked_next_multiple_of(align.max(1))?;
    let symbol = if relocation.symbol == 0 {
        0
    } else {
        binary.dynamic_symbol(relocation.symbol)?
    };
    Some(symbol.wrapping_add(relocation.addend as u64).wrapping_sub(block) as i64)
}
