//! Windows: attaches and detaches probes and hooks in threads of their own, because the kernel takes some 10 ms for each probe.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_common::hits::Plane;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};

use super::{
    kernel::{self, AttachedHook, DetachedHook},
    plan::Probe,
    uprobe::{self, Links, LoadedExe, Object, Outcome},
};

/// Finished changes that wait to be handled.
const DONE: usize = 256;
/// Threads that wait for the kernel to detach probes: a hundred targets may end at once, and the host's load average counts
/// each thread that waits.
const DETACHING: usize = 16;

/// A finished change.
pub enum Done {
    Probes {
        target_id: u32,
        plane: Plane,
        change: Change,
    },
    Hooks {
        plane: Plane,
        hooks: Hooks,
    },
}

/// What became of a target's probes.
pub enum Change {
    Opened {
        outcome: Outcome,
        /// Of the probes that are always in place: what was missing and was tried again.
        always: Outcome,
    },
    /// The same for these alone, without a window.
    Retried {
        always: Outcome,
    },
    Closed,
}

/// What became of the kernel's hooks.
pub enum Hooks {
    Attached {
        hooks: Vec<AttachedHook>,
        /// Others that could not be, and why.
        refused: Vec<(DetachedHook, String)>,
    },
    Detached(Vec<DetachedHook>),
}

/// Attaches and detaches in tasks of their own.
#[derive(Clone)]
pub struct Windows {
    object: Arc<Mutex<Object>>,
    detaching: Arc<Semaphore>,
    windows_to_watch: mpsc::Sender<Done>,
}

impl Windows {
    /// Finished changes come out of the receiver.
    pub fn new(object: Object) -> (Self, mpsc::Receiver<Done>) {
        let (windows_to_watch, done) = mpsc::channel(DONE);
        let windows = Self {
            object: Arc::new(Mutex::new(object)),
            detaching: Arc::new(Semaphore::new(DETACHING)),
            windows_to_watch,
        };
        (windows, done)
    }

    /// The programs; waits while a window is being opened.
    pub fn object(&self) -> MutexGuard<'_, Object> {
        // The object holds no state of ours that a panic could leave half done.
        self.object.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The programs, unless a window is being opened.
    pub fn try_object(&self) -> Option<MutexGuard<'_, Object>> {
        self.object.try_lock().ok()
    }

    /// Attaches probes at once and waits for it.
    pub fn attach(&self, exe: &LoadedExe, probes: &[Probe]) -> Outcome {
        uprobe::attach_all(&self.object, exe, probes)
    }

    /// Attaches the `probes` of a plane, and those that are `missing` of what is always in place; [`Change::Opened`] follows.
    pub fn open(&self, target_id: u32, plane: Plane, exe: LoadedExe, probes: Arc<[Probe]>, missing: Vec<Probe>) {
        let (object, windows_to_watch) = (self.object.clone(), self.windows_to_watch.clone());
        tokio::task::spawn_blocking(move || {
            let change = Change::Opened {
                outcome: uprobe::attach_all(&object, &exe, &probes),
                always: uprobe::attach_all(&object, &exe, &missing),
            };
            // The watch is gone only when the agent ends; then the links go with the message.
            let _ = windows_to_watch.blocking_send(Done::Probes {
                target_id,
                plane,
                change,
            });
        });
    }

    /// Attaches those that are `missing` of what is always in place; [`Change::Retried`] follows.
    pub fn retry(&self, target_id: u32, exe: LoadedExe, missing: Vec<Probe>) {
        let (object, windows_to_watch) = (self.object.clone(), self.windows_to_watch.clone());
        tokio::task::spawn_blocking(move || {
            let always = uprobe::attach_all(&object, &exe, &missing);
            let change = Change::Retried { always };
            let _ = windows_to_watch.blocking_send(Done::Probes {
                target_id,
                plane: Plane::Probes,
                change,
            });
        });
    }

    /// Attaches a plane's hooks; [`Hooks::Attached`] follows.
    pub fn attach_hooks(&self, plane: Plane, detached: Vec<DetachedHook>) {
        let (object, windows_to_watch) = (self.object.clone(), self.windows_to_watch.clone());
        tokio::task::spawn_blocking(move || {
            let (mut hooks, mut refused) = (Vec::new(), Vec::new());
            for hook in detached {
                let mut object = object.lock().unwrap_or_else(PoisonError::into_inner);
                match kernel::attach_again(&mut object.ebpf, hook) {
                    Ok(hook) => hooks.push(hook),
                    Err(failure) => refused.push(failure),
                }
            }
            let hooks = Hooks::Attached { hooks, refused };
            let _ = windows_to_watch.blocking_send(Done::Hooks { plane, hooks });
        });
    }

    /// Detaches a plane's hooks; [`Hooks::Detached`] follows.
    pub fn detach_hooks(&self, plane: Plane, attached: Vec<AttachedHook>) {
        let (object, windows_to_watch) = (self.object.clone(), self.windows_to_watch.clone());
        tokio::task::spawn_blocking(move || {
            let mut detached = Vec::new();
            for hook in attached {
                let mut object = object.lock().unwrap_or_else(PoisonError::into_inner);
                detached.push(kernel::detach(&mut object.ebpf, hook));
            }
            let hooks = Hooks::Detached(detached);
            let _ = windows_to_watch.blocking_send(Done::Hooks { plane, hooks });
        });
    }

    /// Detaches `links`.
    pub fn detach(&self, links: Links) -> JoinHandle<()> {
        tokio::spawn(links.detach(self.detaching.clone()))
    }

    /// Detaches the `links` of a plane; [`Change::Closed`] follows.
    pub fn close(&self, target_id: u32, plane: Plane, links: Links) {
        let windows_to_watch = self.windows_to_watch.clone();
        let detached = self.detach(links);
        tokio::spawn(async move {
            // A panic while dropping would have nothing left to undo.
            let _ = detached.await;
            let _ = windows_to_watch
                .send(Done::Probes {
                    target_id,
                    plane,
                    change: Change::Closed,
                })
                .await;
        });
    }
}
