//! File systems that do not answer any more, with executables of processes that run: the agent goes on without them, and ends in
//! order.

mod common;

use std::{
    ffi::OsStr,
    fs,
    path::Path,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant, UNIX_EPOCH},
};

use common::{Agent, Load, Service, demo, load, number_of, of_cause, privileged};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen, Request,
};

/// Executables are called this and their number.
const NAME: &str = "stuck-shop-";
/// Longer than a run.
const LONG: Duration = Duration::from_secs(40);
const MANY: usize = 20;
const DURATION: &str = "whywait.server.request.duration";
/// Windows that are opened now and then.
const RARE: [&str; 6] = ["--budget", "0.2%", "--budget-floor", "0.05%", "--budget-p99", "off"];

/// Whether the file system answers.
#[derive(Default)]
struct Gate {
    shut: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.changed.notify_all();
    }

    /// Waits until it is open. Not for ever: a test that failed could not end.
    fn pass(&self) {
        let shut = self.shut.lock().unwrap();
        drop(self.changed.wait_timeout_while(shut, LONG, |shut| *shut).unwrap());
    }
}

/// Executables, all with the same bytes.
struct Server {
    bytes: Vec<u8>,
    gate: Arc<Gate>,
    /// Whether it says what its file is all the same.
    tells: bool,
}

impl Server {
    fn attributes(&self, ino: INodeNo) -> FileAttr {
        let is_file = ino != INodeNo::ROOT;
        FileAttr {
            ino,
            size: if is_file { self.bytes.len() as u64 } else { 0 },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_file {
                FileType::RegularFile
            } else {
                FileType::Directory
            },
            perm: 0o755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(NAME)?.parse::<u64>().ok());
        match number {
            Some(number) => reply.entry(&Duration::ZERO, &self.attributes(INodeNo(2 + number)), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        if !self.tells {
            self.gate.pass();
        }
        reply.attr(&Duration::ZERO, &self.attributes(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // What is read comes from here each time.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.gate.pass();
        let from = (offset as usize).min(self.bytes.len());
        let to = (from + size as usize).min(self.bytes.len());
        reply.data(&self.bytes[from..to]);
    }
}

/// A mounted file system with executables, of which so many may wait at once.
fn mounted(folder: &Path, tells: bool, waiting: usize) -> (BackgroundSession, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let server = Server {
        bytes: fs::read(demo("go-shop")).unwrap(),
        gate: gate.clone(),
        tells,
    };
    let mut config = Config::default();
    // One that waits keeps no other from being answered.
    config.n_threads = Some(8 + 2 * waiting);
    let session = fuser::spawn_mount(server, folder, &config).expect("a file system of our own");
    (session, gate)
}

fn requests(points: Vec<serde_json::Value>) -> i64 {
    points.iter().map(|point| number_of(&point["count"])).sum()
}

/// When a file system stops to answer.
#[derive(PartialEq)]
enum Since {
    Before,
    Watched,
}

/// So many processes, each with an executable whose file system stops to answer, but for what its file is where it `tells`, and one
/// beside them: the latter is watched all the time, its requests are told, and the run ends in order.
fn check(since: Since, tells: bool, count: usize, args: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let (session, gate) = mounted(folder.path(), tells, count);
    let start_stuck = |number| {
        let program = folder.path().join(format!("{NAME}{number}"));
        Service::start(&program, &["-listen", "127.0.0.1:0"], &[])
    };
    let stuck: Vec<Service> = (0..count).map(start_stuck).collect();
    gate.set(since == Since::Before);
    let others = tempfile::tempdir().unwrap();
    let program = others.path().join("sound-shop");
    fs::copy(demo("go-shop"), &program).unwrap();
    let start = |name| Service::start(&program, &["-listen", "127.0.0.1:0"], &[("OTEL_SERVICE_NAME", name)]);
    let sound = start("sound-shop");
    let exes = [format!("*/{NAME}*"), "*/sound-shop".to_owned()];
    let common = ["--exe", &exes[0], "--exe", &exes[1], "--metric-interval", "1s"];
    let windows = since == Since::Watched;
    // What it takes to answer is in memory by then.
    let busy = windows.then(|| Load::start(&[stuck[0].url("/item?id=7")], 200, 60, 1));
    let agent = Agent::run(&[&common, args].concat(), if windows { 1 + count } else { 1 });
    gate.set(true);
    let serve = |agent: &Agent, name, service: &Service| {
        let url = [service.url("/item?id={n}")];
        if !windows {
            return load(&url, 50, 4, 1);
        }
        // Until some window saw some.
        let load = Load::start(&url, 50, 60, 1);
        let begin = Instant::now();
        while requests(agent.points(name, DURATION)) == 0 && begin.elapsed() < LONG / 2 {
            std::thread::sleep(Duration::from_millis(100));
        }
        load.stop()
    };
    let of_sound = serve(&agent, "sound-shop", &sound);
    // Another program comes.
    let late = start("late-shop");
    // The summary says "watching" too.
    let agent = agent.says(&format!("(pid {}): ", late.pid()), 1);
    let of_late = serve(&agent, "late-shop", &late);
    agent.interrupt();
    let agent = agent.says("everything is detached", 1);
    // A thread that waits for it keeps a process from ending, whatever it is.
    gate.set(false);
    let output = agent.wait();
    // Of a process that is watched some signals may be off in the end.
    let codes: &[i32] = if windows { &[0, 7] } else { &[0] };
    let code = output.status.code();
    assert!(
        code.is_some_and(|code| codes.contains(&code)),
        "{code:?}: {}",
        output.said
    );
    for (service, sent) in [("sound-shop", of_sound), ("late-shop", of_late)] {
        let requests = requests(output.points(service, DURATION));
        let sent = number_of(&sent["count"]);
        let is_enough = if windows { requests > 0 } else { requests == sent };
        assert!(is_enough, "{service}: {requests} of {sent} requests\n{}", output.said);
    }
    let faults = output.points("whywait", "whywait.agent.faults");
    assert!(of_cause(&faults, "late") > 0, "{faults:?}\n{}", output.said);
    drop((busy, stuck));
    drop(session);
}

#[test]
fn what_is_in_an_executable_never_comes() {
    if privileged() {
        check(Since::Before, true, 1, &[]);
    }
}

/// They are waited for side by side, and who comes after them waits for none.
#[test]
fn what_is_in_many_executables_never_comes() {
    if privileged() {
        check(Since::Before, true, MANY, &[]);
    }
}

#[test]
fn not_even_which_file_it_is_comes() {
    if privileged() {
        check(Since::Before, false, 1, &[]);
    }
}

#[test]
fn of_many_processes_not_even_which_files_they_run_comes() {
    if privileged() {
        check(Since::Before, false, MANY, &[]);
    }
}

/// Windows are opened again and again, and read the executable for it.
#[test]
fn it_stops_to_answer_while_its_process_is_watched() {
    if privileged() {
        check(Since::Watched, false, 1, &RARE);
    }
}

#[test]
fn it_stops_to_answer_while_many_of_its_processes_are_watched() {
    if privileged() {
        check(Since::Watched, false, MANY, &RARE);
    }
}
