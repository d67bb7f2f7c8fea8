//! Byte offsets of the running kernel's structs, from its BTF: rustc emits no CO-RE relocations, so they are looked up
//! here and handed to the programs as a global.

use std::path::Path;

use agent_common::kernel::Layout;
use btf_rs::{Btf, Struct, Type};

/// Where the kernel publishes its BTF.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error(
        "this kernel publishes no BTF at {KERNEL_BTF} ({0}): whywait needs a kernel built with CONFIG_DEBUG_INFO_BTF \
         (all current distributions' are)"
    )]
    NoBtf(String),
    #[error("the kernel's BTF has no {0}: this kernel is not supported; please report its version")]
    Missing(String),
}

/// Reads the kernel's BTF and finds every offset the programs use.
pub fn read_layout() -> Result<Layout, LayoutError> {
    let btf = Btf::from_file(Path::new(KERNEL_BTF)).map_err(|error| LayoutError::NoBtf(error.to_string()))?;
    let sock = |path| offset(&btf, "sock", path);
    let task = |path| offset(&btf, "task_struct", path);
    Ok(Layout {
        task_pid: task("pid")?,
        task_tgid: task("tgid")?,
        // Renamed in 5.14 (linux, include/linux/sched.h).
        task_state: task("__state").or_else(|_| task("state"))?,
        task_fsbase: if cfg!(target_arch = "x86_64") {
            task("thread.fsbase")?
        } else {
            0
        },
        sk_family: sock("__sk_common.skc_family")?,
        sk_num: sock("__sk_common.skc_num")?,
        sk_dport: sock("__sk_common.skc_dport")?,
        sk_daddr: sock("__sk_common.skc_daddr")?,
        sk_v6_daddr: sock("__sk_common.skc_v6_daddr")?,
        sk_protocol: sock("sk_protocol")?,
        socket_sk: offset(&btf, "socket", "sk")?,
    })
}

/// Offset in bytes of a dotted path of members, looking through anonymous structs and unions.
fn offset(btf: &Btf, name: &str, path: &str) -> Result<u32, LayoutError> {
    let missing = || LayoutError::Missing(format!("{name}.{path}"));
    let mut current = btf
        .resolve_types_by_name(name)
        .map_err(|_| missing())?
        .into_iter()
        .find_map(|candidate| match candidate {
            Type::Struct(found) if !found.members.is_empty() => Some(found),
            _ => None,
        })
        .ok_or_else(missing)?;
    let mut bits = 0;
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        let (at, member) = find(btf, &current, part, 0).ok_or_else(missing)?;
        bits += at;
        if parts.peek().is_some() {
            current = as_struct(btf, member).ok_or_else(missing)?;
        }
    }
    Ok(bits / 8)
}

/// A member's offset in bits and its type; anonymous members are searched as C does.
fn find(btf: &Btf, within: &Struct, name: &str, depth: u32) -> Option<(u32, Type)> {
    for member in &within.members {
        let found = btf.resolve_name(member).unwrap_or_default();
        if found == name {
            return Some((member.bit_offset(), btf.resolve_chained_type(member).ok()?));
        }
        if found.is_empty()
            && depth < 8
            && let Some(inner) = btf
                .resolve_chained_type(member)
                .ok()
                .and_then(|inner| as_struct(btf, inner))
            && let Some((at, member_type)) = find(btf, &inner, name, depth + 1)
        {
            return Some((member.bit_offset() + at, member_type));
        }
    }
    None
}

/// The struct or union behind typedefs and qualifiers.
fn as_struct(btf: &Btf, mut found: Type) -> Option<Struct> {
    for _ in 0..8 {
        match found {
            Type::Struct(inner) | Type::Union(inner) => return Some(inner),
            other => found = btf.resolve_chained_type(other.as_btf_type()?).ok()?,
        }
    }
    None
}
