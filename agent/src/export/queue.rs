//! A sink's queue, bounded by what waits in it: batches differ in size by a thousand times.

use std::sync::Arc;

use tokio::sync::{
    OwnedSemaphorePermit, Semaphore,
    mpsc::{self, Receiver, Sender},
};

use super::{Outgoing, stats::Cause};

/// Batches that wait for a sink at most; of small ones, as of many quiet targets.
const BATCHES: usize = 4096;
/// KiB of batches that all sinks may hold, those that they are sending among them: of `--limit-memory`'s 64 MiB, with what they are
/// encoded to.
pub(super) const ROOM: usize = 18 << 10;

/// Of that, KiB of the sink of events.
pub(super) const EVENTS: usize = 512;

/// The front of a queue.
pub(super) struct Queue {
    aggregate_to_export: Sender<Queued>,
    room: Arc<Semaphore>,
    /// KiB.
    size: usize,
}

/// A batch that waits, or is being sent; its room is free when it is dropped.
pub(super) struct Queued {
    pub(super) outgoing: Arc<Outgoing>,
    _room: OwnedSemaphorePermit,
}

/// One of so many queues, and where it is read.
pub(super) fn queue(sinks: usize) -> (Queue, Receiver<Queued>) {
    of_size((ROOM - EVENTS) / sinks.max(1))
}

/// That of events over the network, which are few.
pub(super) fn of_events() -> (Queue, Receiver<Queued>) {
    of_size(EVENTS)
}

fn of_size(size: usize) -> (Queue, Receiver<Queued>) {
    let (aggregate_to_export, receiver) = mpsc::channel(BATCHES);
    let room = Arc::new(Semaphore::new(size));
    (
        Queue {
            aggregate_to_export,
            room,
            size,
        },
        receiver,
    )
}

impl Queue {
    /// Hands a batch of so many bytes to the sink, or says why not.
    pub(super) fn offer(&self, outgoing: Arc<Outgoing>, bytes: usize) -> Result<(), Cause> {
        let full = |_| Cause::QueueFull;
        let _room = self
            .room
            .clone()
            .try_acquire_many_owned(self.units(bytes))
            .map_err(full)?;
        let queued = Queued { outgoing, _room };
        self.aggregate_to_export.try_send(queued).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Cause::QueueFull,
            mpsc::error::TrySendError::Closed(_) => Cause::Closed,
        })
    }

    /// The same, waiting for room.
    pub(super) async fn wait(&self, outgoing: Arc<Outgoing>, bytes: usize) -> Result<(), Cause> {
        let closed = |_| Cause::Closed;
        let room = self.room.clone().acquire_many_owned(self.units(bytes));
        let queued = Queued {
            outgoing,
            _room: room.await.map_err(closed)?,
        };
        self.aggregate_to_export.send(queued).await.map_err(|_| Cause::Closed)
    }

    /// A batch that is larger than all room is sent alone.
    fn units(&self, bytes: usize) -> u32 {
        (bytes / 1024 + 1).min(self.size) as u32
    }
}
