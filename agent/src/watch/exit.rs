//! Reports when the process of a target ends.

use std::os::fd::OwnedFd;

use log::warn;
use tokio::{io::unix::AsyncFd, sync::mpsc, task::AbortHandle};

/// Sends the target's id to the pipeline when its process ends, unless the handle is aborted before.
pub(super) fn report(target_id: u32, pidfd: OwnedFd, watch_to_pipeline: mpsc::Sender<u32>) -> AbortHandle {
    // SAFETY: an OwnedFd gives the same open descriptor for as long as it lives, here inside the AsyncFd.
    #[expect(unsafe_code, reason = "tokio has no safe way to register an OwnedFd")]
    let pidfd = unsafe { AsyncFd::register(pidfd) };
    tokio::spawn(async move {
        match pidfd {
            Ok(pidfd) => drop(pidfd.readable().await),
            Err(error) => warn!("cannot wait for a process' end: {}", error.into_parts().1),
        }
        // The pipeline is gone only when the agent ends.
        let _ = watch_to_pipeline.send(target_id).await;
    })
    .abort_handle()
}
