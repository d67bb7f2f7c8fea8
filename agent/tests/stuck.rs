//! File systems that do not answer any more, with executables of processes that run: the agent goes on without them, and ends in
//! order.

mod common;

use std::{
    ffi::OsStr,
    fs,
    path::Path,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, UNIX_EPOCH},
};

use common::{Agent, Load, Service, attribute, demo, load, number_of, privileged};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen, Request,
};

const NAME: &str = "stuck-shop";
const FILE: INodeNo = INodeNo(2);
/// Longer than a run.
const LONG: Duration = Duration::from_secs(40);

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

/// One executable.
struct Server {
    bytes: Vec<u8>,
    gate: Arc<Gate>,
    /// Whether it says what its file is all the same.
    tells: bool,
}

impl Server {
    fn attributes(&self, ino: INodeNo) -> FileAttr {
        let is_file = ino == FILE;
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
        if name == NAME {
            reply.entry(&Duration::ZERO, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
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

/// A mounted file system with an executable.
fn mounted(folder: &Path, tells: bool) -> (BackgroundSession, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let server = Server {
        bytes: fs::read(demo("go-shop")).unwrap(),
        gate: gate.clone(),
        tells,
    };
    let mut config = Config::default();
    // One that waits keeps no other from being answered.
    config.n_threads = Some(8);
    let session = fuser::spawn_mount(server, folder, &config).expect("a file system of our own");
    (session, gate)
}

/// When a file system stops to answer.
#[derive(PartialEq)]
enum Since {
    Before,
    Watched,
}

/// One process whose executable's file system stops to answer, but for what its file is where it `tells`, and one beside it: the latter
/// is watched all the time, and the run ends in order.
fn check(since: Since, tells: bool, args: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let (session, gate) = mounted(folder.path(), tells);
    let program = folder.path().join(NAME);
    let stuck = Service::start(&program, &["-listen", "127.0.0.1:0"], &[]);
    gate.set(since == Since::Before);
    let others = tempfile::tempdir().unwrap();
    let program = others.path().join("sound-shop");
    fs::copy(demo("go-shop"), &program).unwrap();
    let start = |name| Service::start(&program, &["-listen", "127.0.0.1:0"], &[("OTEL_SERVICE_NAME", name)]);
    let sound = start("sound-shop");
    let exes = [format!("*/{NAME}"), "*/sound-shop".to_owned()];
    let common = ["--exe", &exes[0], "--exe", &exes[1], "--metric-interval", "1s"];
    let windows = since == Since::Watched;
    // What it takes to answer is in memory by then.
    let busy = windows.then(|| Load::start(&[stuck.url("/item?id=7")], 200, 60, 1));
    let agent = Agent::run(&[&common, args].concat(), if windows { 2 } else { 1 });
    gate.set(true);
    load(&[sound.url("/item?id={n}")], 50, 4, 1);
    // Another program comes.
    let late = start("late-shop");
    let agent = agent.watching(1);
    load(&[late.url("/item?id={n}")], 50, 4, 1);
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
    for service in ["sound-shop", "late-shop"] {
        let requests = output.points(service, "whywait.server.request.duration");
        let requests: i64 = requests.iter().map(|point| number_of(&point["count"])).sum();
        // Of windows some may have seen next to none.
        let least = if windows { 1 } else { 100 };
        assert!(requests >= least, "{service}: {requests} requests\n{}", output.said);
    }
    let of_cause = |point: &serde_json::Value| attribute(point, "whywait.cause") == Some("late".into());
    let faults = output.points("whywait", "whywait.agent.faults");
    let told = faults
        .iter()
        .filter(|point| of_cause(point))
        .map(|point| number_of(&point["asInt"]));
    assert!(told.sum::<i64>() > 0, "{faults:?}\n{}", output.said);
    drop((busy, stuck));
    drop(session);
}

#[test]
fn what_is_in_an_executable_never_comes() {
    if privileged() {
        check(Since::Before, true, &[]);
    }
}

#[test]
fn not_even_which_file_it_is_comes() {
    if privileged() {
        check(Since::Before, false, &[]);
    }
}

/// Windows are opened again and again, and read the executable for it.
#[test]
fn it_stops_to_answer_while_its_process_is_watched() {
    if privileged() {
        check(
            Since::Watched,
            false,
            &["--budget", "0.2%", "--budget-floor", "0.05%", "--budget-p99", "off"],
        );
    }
}
