//! Stage intake: ring-buffer bytes → typed events. Decoding is pure; the ring buffer is read in `ring`.

pub mod kernel_log;
pub mod ring;

use agent_common::{
    event::{Header, Kind},
    go::{assist::Assists, gc::Cycle, latency::SlowStart, sched::Wait, stw::Stop},
    net::{connect::Connect, request::Request},
    process::exec::Exec,
    thread::syscall::Syscall,
    tokio::poll::Poll,
};
use bytemuck::{AnyBitPattern, checked::CheckedBitPattern};

/// A type of events.
pub trait Payload: Sized + 'static {
    const KIND: Kind;

    /// The event itself, if it is of this kind.
    fn of(event: &Event) -> Option<&Self>;
}

/// Declares every [`Event`], by the name of its [`Kind`].
macro_rules! events {
    ($($name:ident($type:ty),)*) => {
        /// An event as the kernel wrote it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Event { $($name($type),)* }

        $(impl Payload for $type {
            const KIND: Kind = Kind::$name;

            fn of(event: &Event) -> Option<&Self> {
                match event {
                    Event::$name(event) => Some(event),
                    _ => None,
                }
            }
        })*

        impl Event {
            /// Every kind of events.
            pub const KINDS: &'static [Kind] = &[$(Kind::$name),*];

            /// Which kind it is of.
            pub fn kind(&self) -> Kind {
                match self {
                    $(Self::$name(_) => Kind::$name,)*
                }
            }

            /// The header every event begins with.
            pub fn header(&self) -> &Header {
                match self {
                    $(Self::$name(event) => &event.header,)*
                }
            }

            /// The bytes it was decoded from.
            pub fn bytes(&self) -> &[u8] {
                match self {
                    $(Self::$name(event) => bytemuck::bytes_of(event),)*
                }
            }

            fn of_kind(kind: u32, bytes: &[u8]) -> Result<Self, DecodeError> {
                match kind {
                    $(_ if kind == Kind::$name as u32 => Ok(Self::$name(cast(bytes, kind)?)),)*
                    _ => Err(DecodeError::UnknownKind(kind)),
                }
            }
        }
    };
}

events! {
    Exec(Exec),
    GcCycle(Cycle),
    GoWait(Wait),
    TokioPoll(Poll),
    Connect(Connect),
    Request(Request),
    GoStop(Stop),
    GoAssists(Assists),
    Syscall(Syscall),
    GoSlowStart(SlowStart),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("event of {0} bytes is shorter than its header")]
    NoHeader(usize),
    #[error("unknown event kind {0}: the kernel programs and the agent are from different builds")]
    UnknownKind(u32),
    #[error("event kind {kind} has {found} bytes, expected {expected}")]
    Size { kind: u32, found: usize, expected: usize },
}

/// Decodes one ring-buffer record.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let header: Header = cast(
        bytes
            .get(..size_of::<Header>())
            .ok_or(DecodeError::NoHeader(bytes.len()))?,
        0,
    )?;
    Event::of_kind(header.kind, bytes)
}

fn cast<T: AnyBitPattern + CheckedBitPattern>(bytes: &[u8], kind: u32) -> Result<T, DecodeError> {
    let size = DecodeError::Size {
        kind,
        found: bytes.len(),
        expected: size_of::<T>(),
    };
    bytemuck::checked::try_pod_read_unaligned(bytes).map_err(|_| size)
}

#[cfg(test)]
mod tests {
    use agent_common::event::Header;

    use super::*;

    fn header(kind: u32) -> Header {
        Header {
            time: 7,
            kind,
            target_id: 1,
            tgid: 2,
            tid: 3,
        }
    }

    fn check(bytes: &[u8], expected: Result<Event, DecodeError>) {
        assert_eq!(decode(bytes), expected);
        if let Ok(event) = expected {
            assert_eq!(event.bytes(), bytes);
        }
    }

    /// An event of every kind, with its type.
    macro_rules! kinds {
        ($each:ident) => {
            $each!(Exec, Exec);
            $each!(GcCycle, Cycle);
            $each!(GoWait, Wait);
            $each!(TokioPoll, Poll);
            $each!(Connect, Connect);
            $each!(Request, Request);
            $each!(GoStop, Stop);
            $each!(GoAssists, Assists);
            $each!(Syscall, Syscall);
            $each!(GoSlowStart, SlowStart);
        };
    }

    #[test]
    fn events_of_every_kind_come_back_as_they_were_written() {
        let mut seen = 0;
        macro_rules! each {
            ($kind:ident, $type:ty) => {
                // Every byte after the header is another than its neighbours.
                let size = size_of::<$type>();
                let mut bytes: Vec<u8> = (0..size).map(|index| (index * 7 + 1) as u8).collect();
                let head = header(Kind::$kind as u32);
                bytes[..size_of::<Header>()].copy_from_slice(bytemuck::bytes_of(&head));
                let event = Event::$kind(bytemuck::pod_read_unaligned(&bytes));
                assert_eq!(event.header(), &head);
                check(&bytes, Ok(event));
                // As a ring buffer of another build may hold it: one byte less, one more.
                for found in [size - 1, size + 1] {
                    bytes.resize(found, 0);
                    let expected = DecodeError::Size {
                        kind: Kind::$kind as u32,
                        found,
                        expected: size,
                    };
                    let short = found < size_of::<Header>();
                    check(
                        &bytes,
                        Err(if short {
                            DecodeError::NoHeader(found)
                        } else {
                            expected
                        }),
                    );
                }
                seen += 1;
            };
        }
        kinds!(each);
        // The next kind is none: there are no others.
        check(
            bytemuck::bytes_of(&header(seen + 1)),
            Err(DecodeError::UnknownKind(seen + 1)),
        );
        check(bytemuck::bytes_of(&header(0)), Err(DecodeError::UnknownKind(0)));
    }

    #[test]
    fn what_is_no_event_is_named() {
        check(&[0; 3], Err(DecodeError::NoHeader(3)));
        check(bytemuck::bytes_of(&header(99)), Err(DecodeError::UnknownKind(99)));
        let truncated = header(Kind::GoWait as u32);
        check(
            bytemuck::bytes_of(&truncated),
            Err(DecodeError::Size {
                kind: 3,
                found: 24,
                expected: 192,
            }),
        );
    }

    #[test]
    fn unaligned_bytes_decode() {
        let exec = Exec {
            header: header(Kind::Exec as u32),
        };
        let mut bytes = vec![0];
        bytes.extend_from_slice(bytemuck::bytes_of(&exec));
        check(&bytes[1..], Ok(Event::Exec(exec)));
    }
}
