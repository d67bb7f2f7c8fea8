//! A service whose executable is on an overlay file system, as those of containers are: whatever becomes of that once it runs.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use common::{Agent, Output, Service, attribute, demo, list, number_of, privileged};

const NAME: &str = "overlay-shop";

/// One layer with the executable, and one above it that takes changes.
struct Overlay {
    folder: tempfile::TempDir,
}

impl Overlay {
    fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::copy(demo("go-shop"), folder.path().join("lower").join(NAME)).unwrap();
        let status = Command::new("mount")
            .current_dir(folder.path())
            .args([
                "-t",
                "overlay",
                "overlay",
                "-o",
                "lowerdir=lower,upperdir=upper,workdir=work",
                "merged",
            ])
            .status();
        assert!(status.unwrap().success(), "no overlay can be mounted");
        Self { folder }
    }

    fn merged(&self) -> PathBuf {
        self.folder.path().join("merged")
    }

    /// Nobody finds it by its path any more; who runs it goes on.
    fn unmount(&self) {
        umount(&self.merged());
    }
}

fn umount(folder: &Path) -> bool {
    let mut umount = Command::new("umount");
    umount.arg("--lazy").arg(folder).stderr(Stdio::null());
    umount.status().is_ok_and(|status| status.success())
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // It may be unmounted already.
        umount(&self.merged());
    }
}

/// What a run by name and by path says of the service, after `change` was made once it ran.
fn watch(change: impl Fn(&Overlay), args: &[&str]) -> Output {
    const REQUESTS: usize = 20;
    let overlay = Overlay::mount();
    let service = Service::start(&overlay.merged().join(NAME), &["-listen", "127.0.0.1:0"], &[]);
    change(&overlay);
    let agent = Agent::run(args, 1);
    for _ in 0..REQUESTS {
        service.get("/chan?n=10");
    }
    service.get("/gc");
    thread::sleep(Duration::from_secs(2));
    let pid = service.pid();
    let output = agent.stop();
    let line = format!("watching {NAME} (pid {pid})");
    assert!(output.said.contains(&line), "no {line:?} in {}", output.said);
    assert!(!output.said.contains(&format!("(pid {pid}) ended")), "{}", output.said);
    // What no probe is for is seen all the same.
    let requests = output.points(NAME, "whywait.server.request.duration");
    let requests: i64 = requests.iter().map(|point| number_of(&point["count"])).sum();
    assert_eq!(requests, REQUESTS as i64 + 1, "{}", output.said);
    output
}

/// Values that only probes have, and spans of GC cycles.
fn probed(output: &Output) -> (i64, usize) {
    let waits = output.points(NAME, "go.goroutine.runnable.duration");
    let cycles = output
        .spans(NAME)
        .into_iter()
        .filter(|span| span["name"] == "go.gc.cycle");
    (
        waits.iter().map(|point| number_of(&point["count"])).sum(),
        cycles.count(),
    )
}

fn by_exe() -> [String; 2] {
    ["--exe".to_owned(), format!("*/{NAME}")]
}

#[track_caller]
fn check_whole(change: impl Fn(&Overlay), args: &[&str]) {
    let output = watch(change, args);
    assert_eq!(output.status.code(), Some(0), "{}", output.said);
    let (waits, cycles) = probed(&output);
    assert!(
        waits > 100 && cycles == 1,
        "{waits} waits, {cycles} cycles: {}",
        output.said
    );
}

#[test]
fn it_is_found_by_name_and_by_path_and_seen_whole() {
    if privileged() {
        check_whole(|_| {}, &["--name", NAME]);
        check_whole(|_| {}, &by_exe().each_ref().map(String::as_str));
    }
}

#[test]
fn it_is_seen_whole_when_its_mount_is_gone() {
    if privileged() {
        check_whole(Overlay::unmount, &["--name", NAME]);
        check_whole(Overlay::unmount, &by_exe().each_ref().map(String::as_str));
    }
}

/// A file that is changed is copied to the upper layer first, were it only its owner that changes: the path leads to the copy from then
/// on, and so do probes, while the service runs the lower one.
#[test]
fn probes_that_would_go_into_a_copy_of_it_are_off_and_it_is_said() {
    if !privileged() {
        return;
    }
    let copy_up = |overlay: &Overlay| {
        let file = overlay.merged().join(NAME);
        std::os::unix::fs::chown(&file, Some(1), None).unwrap();
        assert!(overlay.folder.path().join("upper").join(NAME).exists());
    };
    let output = watch(copy_up, &["--name", NAME]);
    assert_eq!(probed(&output), (0, 0), "{}", output.said);
    assert_eq!(output.status.code(), Some(7), "{}", output.said);
    let states = output.points(NAME, "whywait.signal.state");
    let states: Vec<(String, String, String)> = states
        .iter()
        .map(|point| {
            let text = |key| attribute(point, key).map_or_else(String::new, |value| value.as_str().unwrap().to_owned());
            (text("whywait.signal"), text("whywait.coverage"), text("whywait.cause"))
        })
        .collect();
    for signal in ["go.gc", "go.stw", "go.assist", "go.sched"] {
        let state = states.iter().find(|(of, ..)| of == signal).expect(signal);
        assert!(state.1 == "off" && state.2.contains("runs another file"), "{state:?}");
    }
    for signal in ["go.runtime", "net.request", "thread.run_queue"] {
        let state = states.iter().find(|(of, ..)| of == signal).expect(signal);
        assert_eq!(state.1, "full", "{state:?}");
    }
    assert!(output.said.contains("runs another file"), "{}", output.said);
    // Nothing is told as if it had been looked at.
    assert!(list(&output.points(NAME, "whywait.overhead.hits").into()).all(|point| {
        !attribute(point, "whywait.probe")
            .unwrap()
            .as_str()
            .unwrap()
            .starts_with("go_")
    }));
}
