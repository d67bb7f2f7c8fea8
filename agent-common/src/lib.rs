//! What the kernel programs and the agent share: events, map keys and values, counters.
//!
//! Every type here is `repr(C)` without padding, so that both sides see the same bytes; user space reads them through
//! bytemuck's checked casts (feature `user`). One signal, one file, under the same path in `agent-ebpf` and in
//! `agent/src/signals`.
#![no_std]

pub mod event;
pub mod go;
pub mod histogram;
pub mod hits;
pub mod kernel;
pub mod kernel_log;
pub mod loss;
pub mod net;
pub mod process;
pub mod table;
pub mod target;
pub mod thread;
pub mod tokio;

/// Declares a shared `repr(C)` type: copyable, comparable, and a bytemuck `Pod` in user space, which refuses padding.
#[macro_export]
macro_rules! shared {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
        pub struct $name { $($(#[$fmeta])* pub $field: $type,)* }

        // SAFETY: bytemuck's derive above refuses a type that is not plain old data.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $name {}
    )*};
}

/// Asserts at compile time that a shared type has the size both sides were written for.
#[macro_export]
macro_rules! layout {
    ($($type:ty: $size:expr),* $(,)?) => {$(
        const _: () = assert!(core::mem::size_of::<$type>() == $size);
        const _: () = assert!(core::mem::align_of::<$type>() <= 8);
    )*};
}
