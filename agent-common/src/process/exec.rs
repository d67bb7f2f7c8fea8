//! A process executed another program. Its end is seen by its pidfd, in user space.

use crate::{event::Header, layout, shared};

shared! {
    /// `header.tgid` is the process; its files are read from /proc.
    pub struct Exec {
        pub header: Header,
    }
}

layout!(Exec: 24);
