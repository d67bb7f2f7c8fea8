//! Two network namespaces with a known delay between them: a TUN device in each, and threads here that hold every packet.

use std::{
    collections::HashSet,
    fs::File,
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::ioctl::{Setter, ioctl};

/// linux/if_tun.h: TUNSETIFF, IFF_TUN | IFF_NO_PI
const TUNSETIFF: rustix::ioctl::Opcode = 0x4004_54ca;
const TUN_WITHOUT_HEADER: u16 = 0x1001;
const LARGEST_PACKET: usize = 1 << 16;

/// struct ifreq, as TUNSETIFF reads it.
#[repr(C)]
struct Interface {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Packets of TCP that were dropped: SYNs, and segments with data.
#[derive(Clone, Default)]
pub struct Dropped(Arc<[AtomicU64; 2]>);

impl Dropped {
    pub fn syns(&self) -> u64 {
        self.0[0].load(Relaxed)
    }

    pub fn data(&self) -> u64 {
        self.0[1].load(Relaxed)
    }
}

/// The namespaces; removed when this goes out of scope. What runs in them must be gone by then: declare it later.
pub struct Delay {
    namespaces: [String; 2],
}

/// Addresses of the two ends.
pub const NEAR: &str = "10.213.77.1";
pub const FAR: &str = "10.213.77.2";

impl Delay {
    /// Each packet is held for `each_way`.
    pub fn new(each_way: Duration) -> Self {
        Self::passing(each_way, |_| true)
    }

    /// The same, but each SYN and each segment with data from the near end is lost the first time that it is sent.
    pub fn losing(each_way: Duration) -> (Self, Dropped) {
        let (dropped, mut seen) = (Dropped::default(), HashSet::new());
        let counts = dropped.clone();
        let passes = move |packet: &[u8]| {
            let Some(segment) = Segment::parse(packet).filter(|segment| segment.syn || segment.data) else {
                return true;
            };
            let again = !seen.insert(segment);
            if !again {
                counts.0[usize::from(!segment.syn)].fetch_add(1, Relaxed);
            }
            again
        };
        (Self::passing(each_way, passes), dropped)
    }

    /// Packets of the near end have to pass.
    fn passing(each_way: Duration, passes: impl FnMut(&[u8]) -> bool + Send + 'static) -> Self {
        let id = std::process::id();
        // Made before anything can fail, so that its Drop removes what was set up.
        let delay = Self {
            namespaces: [format!("whywait-near-{id}"), format!("whywait-far-{id}")],
        };
        let ends = [("n", NEAR), ("f", FAR)];
        let tuns = [0, 1].map(|index| {
            let (letter, address) = ends[index];
            let namespace = &delay.namespaces[index];
            let device = format!("ww{letter}{id}");
            // The device moves into the namespace; the descriptor stays here and goes on working.
            let tun = open(&device);
            ip(&["netns", "add", namespace]);
            ip(&["link", "set", &device, "netns", namespace]);
            ip(&[
                "-n",
                namespace,
                "address",
                "add",
                &format!("{address}/24"),
                "dev",
                &device,
            ]);
            ip(&["-n", namespace, "link", "set", &device, "up"]);
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
            tun
        });
        let [near, far] = tuns;
        forward(near.try_clone().unwrap(), far.try_clone().unwrap(), each_way, passes);
        forward(far, near, each_way, |_| true);
        delay
    }

    /// Arguments to `ip` that run `program` at the near end.
    pub fn near<'a>(&'a self, program: &'a Path) -> Vec<&'a str> {
        self.inside(0, program)
    }

    /// Arguments to `ip` that run `program` at the far end.
    pub fn far<'a>(&'a self, program: &'a Path) -> Vec<&'a str> {
        self.inside(1, program)
    }

    fn inside<'a>(&'a self, index: usize, program: &'a Path) -> Vec<&'a str> {
        vec!["netns", "exec", &self.namespaces[index], program.to_str().unwrap()]
    }
}

/// What tells one segment of TCP over IPv4 from all others (RFC 791, RFC 9293).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Segment {
    ports: [u8; 4],
    sequence: [u8; 4],
    syn: bool,
    data: bool,
}

impl Segment {
    fn parse(packet: &[u8]) -> Option<Self> {
        const TCP: u8 = 6;
        let (first, protocol) = (packet.first()?, packet.get(9)?);
        if first >> 4 != 4 || *protocol != TCP {
            return None;
        }
        let tcp = packet.get(usize::from(first & 0xf) * 4..)?;
        let header = usize::from(tcp.get(12)? >> 4) * 4;
        Some(Self {
            ports: tcp.get(..4)?.try_into().ok()?,
            sequence: tcp.get(4..8)?.try_into().ok()?,
            syn: tcp.get(13)? & 2 != 0,
            data: tcp.len() > header,
        })
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            // Its device goes with it, and with that the threads' reads end. It may not be there yet.
            let _ = Command::new("ip")
                .args(["netns", "del", namespace])
                .stderr(Stdio::null())
                .status();
        }
    }
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("iproute2 is installed");
    assert!(
        output.status.success(),
        "ip {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn open(name: &str) -> File {
    let mut request = Interface {
        name: [0; 16],
        flags: TUN_WITHOUT_HEADER,
        rest: [0; 22],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    let tun = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: TUNSETIFF reads a struct ifreq, which Interface is laid out as.
    unsafe { ioctl(&tun, Setter::<TUNSETIFF, Interface>::new(request)) }.unwrap();
    tun
}

/// One thread notes when a packet came, the other sends it when it is due: the delay does not add up in a burst.
fn forward(mut from: File, mut to: File, hold: Duration, mut passes: impl FnMut(&[u8]) -> bool + Send + 'static) {
    let (send, held) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut packet = vec![0; LARGEST_PACKET];
        while let Ok(length) = from.read(&mut packet) {
            if length == 0 {
                return;
            }
            if passes(&packet[..length]) && send.send((Instant::now() + hold, packet[..length].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (due, packet) in held {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // An interface that is down refuses packets; the senders repeat what they need.
            let _ = to.write_all(&packet);
        }
    });
}
