//! Who a watched process is: facts of it that hold as long as it is watched, and the names in its code. What its signals keep and how
//! it is watched is not here.

mod symbols;

use std::{
    collections::HashMap,
    fs::File,
    sync::{Arc, Mutex},
};

use agent_common::tokio::poll::UNENDED;

use crate::{
    clock,
    discover::{Process, ProcessError},
    inspect::{Frame, Image},
    model::{Attribute, MonoNs, Point, PointData, Resource},
};
use symbols::Known;

/// A watched process.
pub struct Target {
    pub process: Process,
    /// Unique for the agent's life; what the kernel's maps and events carry.
    pub id: u32,
    /// What its executable is; None when it is of no runtime that is known, and was named by the user.
    pub image: Option<Arc<dyn Image>>,
    /// Its file, where it has names that are asked for: open as long as the process is watched, and somebody reads it.
    pub exe: Option<Arc<File>>,
    /// Run-time address less link-time address.
    pub bias: u64,
    pub resource: Arc<Resource>,
    /// When it was attached: begin of the kernel's counts.
    pub since: MonoNs,
    /// When the process started: begin of the runtime's own counts.
    pub started: MonoNs,
    /// Future names by type id; 0 is unknown.
    pub futures: HashMap<u32, String>,
    /// Of a recorded target: what its symbols said.
    pub frames: HashMap<u64, Frame>,
    /// By address of a function that a goroutine was started with, as [`Self::go_start`].
    pub starts: HashMap<u64, u64>,
    symbols: Mutex<Known>,
}

impl Target {
    /// A target of which nothing more is known yet.
    pub fn new(process: Process, id: u32, resource: Arc<Resource>, since: MonoNs) -> Self {
        let started = clock::process_start(process.start);
        Self {
            process,
            id,
            image: None,
            exe: None,
            bias: 0,
            resource,
            since,
            started,
            futures: HashMap::new(),
            frames: HashMap::new(),
            starts: HashMap::new(),
            symbols: Mutex::default(),
        }
    }

    /// Opens what functions' names are read of as they are asked for: also when the process has ended.
    pub fn open_exe(&mut self) -> Result<(), ProcessError> {
        if self.image.as_ref().is_some_and(|image| image.has_symbols()) {
            self.exe = Some(self.process.open_exe()?.into());
        }
        Ok(())
    }

    /// A future's name by its type id.
    pub fn future(&self, id: u32) -> &str {
        // Whether the ends of its polls are seen may change.
        let of = |id| self.futures.get(&id).map(String::as_str);
        of(id).or_else(|| of(id ^ UNENDED)).unwrap_or("unknown")
    }

    /// A gauge's point.
    pub fn gauge(&self, value: i64, time: MonoNs, attributes: Vec<Attribute>) -> Point {
        Point {
            attributes,
            start: self.started,
            time,
            data: PointData::Gauge(value),
            exemplars: Vec::new(),
        }
    }

    /// A cumulative sum's point, counted since the target was attached.
    pub fn sum(&self, value: u64, time: MonoNs, attributes: Vec<Attribute>) -> Point {
        self.sum_from(self.since, value, time, attributes)
    }

    /// A cumulative sum's point, counted since `start`.
    pub fn sum_from(&self, start: MonoNs, value: u64, time: MonoNs, attributes: Vec<Attribute>) -> Point {
        Point {
            attributes,
            start,
            time,
            data: PointData::Sum(value as i64),
            exemplars: Vec::new(),
        }
    }
}
