//! The kernel's types, read where they stand: the running kernel has some 150,000, of which a handful is asked for.
//!
//! Format: Linux 6.18, include/uapi/linux/btf.h and Documentation/bpf/btf.rst.

/// BTF of the running kernel, little endian.
pub(super) struct Btf<'a> {
    strings: &'a [u8],
    types: &'a [u8],
    /// Where each type begins in `types`; type 0 is void and has no place.
    places: Vec<u32>,
}

/// The twelve bytes that every type begins with (`struct btf_type`).
#[derive(Clone, Copy)]
struct Type<'a> {
    name: u32,
    kind: u32,
    /// Bit offsets of its members share their word with a bit field's size (`kind_flag`).
    packed: bool,
    /// The type it refers to, or its size.
    of: u32,
    members: &'a [u8],
}

const MAGIC: [u8; 2] = [0x9f, 0xeb];
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const FUNC: u32 = 12;
/// Typedef, volatile, const, restrict and type tag: the type they are made of counts.
const TRANSPARENT: [u32; 5] = [8, 9, 10, 11, 18];
/// The kernel's deepest anonymous structs are a few levels down.
const MAX_DEPTH: usize = 16;

impl<'a> Btf<'a> {
    /// None when it is no BTF, or ends early, or has kinds that are not known.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let word = |at: usize| Some(word(bytes, at)? as usize);
        if bytes.get(..2)? != MAGIC {
            return None;
        }
        let part = |at: usize| -> Option<&'a [u8]> {
            let begin = word(4)?.checked_add(word(at)?)?;
            bytes.get(begin..begin.checked_add(word(at + 4)?)?)
        };
        let mut btf = Self {
            types: part(8)?,
            strings: part(16)?,
            places: Vec::new(),
        };
        let mut at = 0;
        while at < btf.types.len() {
            btf.places.push(u32::try_from(at).ok()?);
            at += 12 + btf.tail(at)?;
        }
        Some(btf)
    }

    /// Offset in bytes of a dotted path of members of a struct; members of anonymous structs and unions count as their
    /// parent's.
    pub(super) fn offset(&self, name: &str, path: &str) -> Option<u32> {
        // By name alone a function or a forward declaration could be meant.
        let mut all = (0..self.places.len()).filter_map(|at| self.at(at));
        let mut of = all.find(|of| of.kind == STRUCT && self.is_named(of.name, name));
        let mut bits = 0u32;
        for member in path.split('.') {
            let (offset, next) = self.member(&of?, member, 0)?;
            bits = bits.checked_add(offset)?;
            of = self.resolved(next);
        }
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Size in bytes of a struct or union.
    pub(super) fn size(&self, name: &str) -> Option<u32> {
        let mut all = (0..self.places.len()).filter_map(|at| self.at(at));
        let of = all.find(|of| matches!(of.kind, STRUCT | UNION) && self.is_named(of.name, name))?;
        Some(of.of)
    }

    /// Id of a function, as a program's call of it names it.
    pub(super) fn function(&self, name: &str) -> Option<u32> {
        let is_it = |at: &usize| {
            let found = self.at(*at);
            found.is_some_and(|of| of.kind == FUNC && self.is_named(of.name, name))
        };
        // Type 0 is void and has no place.
        (0..self.places.len()).find(is_it).map(|at| at as u32 + 1)
    }

    /// Offset in bits, and type, of a member.
    fn member(&self, of: &Type<'a>, wanted: &str, depth: usize) -> Option<(u32, u32)> {
        of.members.chunks_exact(12).find_map(|member| {
            let (name, kind, offset) = (word(member, 0)?, word(member, 4)?, word(member, 8)?);
            let offset = if of.packed { offset & 0xff_ffff } else { offset };
            if self.is_named(name, wanted) {
                return Some((offset, kind));
            }
            let inner = self.resolved(kind)?;
            if !self.is_named(name, "") || depth == MAX_DEPTH {
                return None;
            }
            let (within, kind) = self.member(&inner, wanted, depth + 1)?;
            Some((offset.checked_add(within)?, kind))
        })
    }

    /// The struct or union that a type is, if it is one.
    fn resolved(&self, mut id: u32) -> Option<Type<'a>> {
        for _ in 0..MAX_DEPTH {
            let found = self.at((id as usize).checked_sub(1)?)?;
            if !TRANSPARENT.contains(&found.kind) {
                return matches!(found.kind, STRUCT | UNION).then_some(found);
            }
            id = found.of;
        }
        None
    }

    fn at(&self, index: usize) -> Option<Type<'a>> {
        let at = *self.places.get(index)? as usize;
        let info = word(self.types, at + 4)?;
        let kind = info >> 24 & 0x1f;
        let members = if matches!(kind, STRUCT | UNION) {
            self.tail(at)?
        } else {
            0
        };
        Some(Type {
            name: word(self.types, at)?,
            kind,
            packed: info >> 31 == 1,
            of: word(self.types, at + 8)?,
            members: self.types.get(at + 12..at + 12 + members)?,
        })
    }

    /// Bytes that follow the first twelve of the type at `at`.
    fn tail(&self, at: usize) -> Option<usize> {
        let info = word(self.types, at + 4)?;
        let count = (info & 0xffff) as usize;
        // In the order of BTF_KIND_*: each of its members, or the one thing that follows.
        const MEMBER: [usize; 20] = [0, 0, 0, 0, 12, 12, 8, 0, 0, 0, 0, 0, 0, 8, 0, 12, 0, 0, 0, 12];
        const ONE: [usize; 20] = [0, 4, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 4, 0, 0];
        let kind = (info >> 24 & 0x1f) as usize;
        Some(MEMBER.get(kind)? * count + ONE[kind])
    }

    fn is_named(&self, name: u32, wanted: &str) -> bool {
        let rest = self.strings.get(name as usize..).unwrap_or_default();
        rest.strip_prefix(wanted.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&0))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// struct a { int x; struct { const struct b inner; }; }; struct b { int :3; int y; }; void inner(void): types 1 to 7.
    fn sample() -> Vec<u8> {
        let strings = b"\0a\0x\0inner\0b\0y\0";
        let types: Vec<u32> = [
            &[0, 1 << 24, 4, 32][..],
            &[1, 4 << 24 | 2, 16, 3, 1, 0, 0, 3, 64],
            &[0, 4 << 24 | 1, 8, 5, 4, 0],
            &[0, 10 << 24, 5],
            &[11, 1 << 31 | 4 << 24 | 2, 8, 0, 1, 3 << 24, 13, 1, 32],
            &[0, 13 << 24, 0],
            &[5, 12 << 24, 6],
        ]
        .concat();
        let length = types.len() as u32 * 4;
        let head = [24, 0, length, length, strings.len() as u32];
        let words = head.iter().chain(&types).flat_map(|word| word.to_le_bytes());
        [0x9f, 0xeb, 1, 0].into_iter().chain(words).chain(*strings).collect()
    }

    #[test]
    fn members_are_found_through_what_has_no_name() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).unwrap();
        for (name, path, expected) in [
            ("a", "x", Some(0)),
            ("a", "inner", Some(8)),
            ("a", "inner.y", Some(12)),
            ("b", "y", Some(4)),
            ("a", "y", None),
            ("c", "x", None),
            ("a", "x.x", None),
        ] {
            assert_eq!(btf.offset(name, path), expected, "{name}.{path}");
        }
        assert_eq!([btf.size("a"), btf.size("b"), btf.size("c")], [Some(16), Some(8), None]);
        assert_eq!(
            [btf.function("inner"), btf.function("a"), btf.function("c")],
            [Some(7), None, None]
        );
    }

    #[test]
    fn what_ends_early_is_none() {
        let bytes = sample();
        for end in 0..bytes.len() {
            assert!(Btf::parse(&bytes[..end]).is_none(), "{end}");
        }
    }
}
