//! Reads the ring buffer as it fills.

use std::io;

use aya::maps::{Map, MapData, MapError, RingBuf};
use tokio::io::unix::AsyncFd;

use super::{DecodeError, Event, decode};

/// Bytes before each record, which is padded to 8 (Linux, include/uapi/linux/bpf.h, BPF_RINGBUF_HDR_SZ).
const HEAD: u64 = 8;

/// The kernel's ring buffer, with counts of what came out of it.
pub struct Ring {
    ring: AsyncFd<RingBuf<MapData>>,
    /// Records taken out.
    pub received: u64,
    /// Records that were no event.
    pub rejected: u64,
    /// Bytes of the ring that they took.
    pub taken: u64,
    size: u64,
}

impl Ring {
    /// Takes over the `EVENTS` map.
    pub fn new(map: Map) -> Result<Self, RingError> {
        let size = match &map {
            Map::RingBuf(data) => u64::from(data.info()?.max_entries()),
            _ => 0,
        };
        // SAFETY: the RingBuf owns its map's descriptor and gives the same one for as long as it lives, inside the AsyncFd.
        #[expect(unsafe_code, reason = "aya's RingBuf does not promise I/O safety by type")]
        let ring = unsafe { AsyncFd::register(RingBuf::try_from(map)?) };
        let ring = ring.map_err(|error| RingError::Io(error.into_parts().1))?;
        Ok(Self {
            ring,
            received: 0,
            rejected: 0,
            taken: 0,
            size,
        })
    }

    /// Most bytes that it holds.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Waits until there is something to [`Self::drain`]. Cancel-safe.
    pub async fn ready(&self) -> io::Result<()> {
        self.ring.readable().await.map(|mut guard| guard.clear_ready())
    }

    /// Hands every record there is to `each`, with what it is, at most `limit`; true when some are left.
    pub fn drain(&mut self, limit: usize, mut each: impl FnMut(&[u8], Result<Event, DecodeError>)) -> bool {
        for _ in 0..limit {
            let Some(record) = self.ring.get_mut().next() else {
                return false;
            };
            let event = decode(&record);
            self.received += 1;
            self.taken += (HEAD + record.len() as u64).next_multiple_of(8);
            self.rejected += u64::from(event.is_err());
            each(&record, event);
        }
        true
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RingError {
    #[error("cannot open the ring buffer: {0}")]
    Map(#[from] MapError),
    #[error("cannot wait for the ring buffer: {0}")]
    Io(#[from] io::Error),
}
