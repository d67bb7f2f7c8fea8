//! Go programs built by given toolchains, and what runs in them.

use std::any::Any;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use agent::inspect::{Arch, GoHook, GoImage, SiteCost, inspect};

const PROGRAM: &str = include_str!("../fixtures/go_facts.go.txt");
const TLS_PROGRAM: &str = include_str!("../fixtures/go_tls.go.txt");
const LIFE_PROGRAM: &str = include_str!("../fixtures/go_life.go.txt");
const NAMES_PROGRAM: &str = include_str!("../fixtures/go_names.go.txt");
const TURNS_PROGRAM: &str = include_str!("../fixtures/go_turns.go.txt");
const STACKS_PROGRAM: &str = include_str!("../fixtures/go_stacks.go.txt");
const FINDINGS_PROGRAM: &str = include_str!("../fixtures/go_findings.go.txt");
const PLANTED_PROGRAM: &str = include_str!("../fixtures/go_planted.go.txt");
const ON_CPU_PROGRAM: &str = include_str!("../fixtures/go_on_cpu.go.txt");
const UNREAD_PROGRAM: &str = include_str!("../fixtures/go_unread.go.txt");
const SHARED_PROGRAM: &str = include_str!("../fixtures/go_shared.go.txt");
/// Belongs to the one that lives; Go leaves it out of builds without cgo.
const IN_C: &str = include_str!("../fixtures/go_in_c.go.txt");

/// Go itself, of a version or (`local`) the one in PATH.
pub fn go(toolchain: &str) -> Command {
    let mut command = Command::new("go");
    command.env("GOTOOLCHAIN", toolchain);
    command
}

/// Where what another machine built lies: a VM has no Go. Below it a folder for each version.
pub fn brought() -> Option<PathBuf> {
    std::env::var_os("WHYWAIT_GO_BUILDS").map(PathBuf::from)
}

/// Builds a program with `flags`: what its name begins with says which. Where builds are brought along, gives the one of that name.
pub fn build(name: &str, toolchain: &str, flags: &[&str], env: &[(&str, &str)]) -> PathBuf {
    match brought() {
        Some(folder) => folder.join(toolchain).join(name).join("facts"),
        None => build_in(Path::new(env!("CARGO_TARGET_TMPDIR")), name, toolchain, flags, env),
    }
}

/// The same, in a folder of its own below `folder`.
pub fn build_in(folder: &Path, name: &str, toolchain: &str, flags: &[&str], env: &[(&str, &str)]) -> PathBuf {
    let dir = folder.join(name);
    std::fs::create_dir_all(&dir).expect("a directory");
    let program = match name.split('-').next() {
        Some("tls") => TLS_PROGRAM,
        Some("life") => LIFE_PROGRAM,
        Some("names") => NAMES_PROGRAM,
        Some("shared") => SHARED_PROGRAM,
        Some("turns") => TURNS_PROGRAM,
        Some("on") => ON_CPU_PROGRAM,
        Some("stacks") => STACKS_PROGRAM,
        Some("planted") => PLANTED_PROGRAM,
        Some("findings") => FINDINGS_PROGRAM,
        Some("unread") => UNREAD_PROGRAM,
        _ => PROGRAM,
    };
    std::fs::write(dir.join("main.go"), program).expect("main.go");
    if program == LIFE_PROGRAM {
        std::fs::write(dir.join("in_c.go"), IN_C).expect("in_c.go");
    }
    if program == UNREAD_PROGRAM {
        // Go takes functions without a body where there is assembly.
        std::fs::write(dir.join("empty.s"), "").expect("empty.s");
    }
    std::fs::write(dir.join("go.mod"), "module example.org/facts\ngo 1.18\n").expect("go.mod");
    let mut command = go(toolchain);
    command.current_dir(&dir).envs(env.iter().copied());
    let status = command.args(["build", "-o", "facts"]).args(flags).arg(".").status();
    let status = status.unwrap_or_else(|error| panic!("go: {error}; `cargo xtask test` puts it into PATH"));
    assert!(status.success(), "go build failed");
    dir.join("facts")
}

pub fn go_image(path: &Path) -> (Vec<u8>, Box<GoImage>) {
    let bytes = std::fs::read(path).expect("the binary");
    let image: Box<dyn Any> = inspect(&bytes).expect("an image").expect("a runtime");
    (bytes, image.downcast().expect("Go"))
}

/// A running copy of the program, stopped in the middle, and what it printed about itself.
pub struct Live {
    child: Child,
    memory: std::fs::File,
    bias: u64,
    facts: Vec<(String, u64)>,
}

impl Live {
    pub fn start(path: &Path, image: &GoImage) -> Self {
        let mut child = Command::new(path)
            .stdout(Stdio::piped())
            .stdin(Stdio::piped())
            .spawn()
            .expect("it runs");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let facts = output
            .lines()
            .map(|l| l.expect("a line"))
            .take_while(|l| l != "end")
            .map(|l| {
                let (key, value) = l.split_once(' ').expect("key and value");
                (key.to_owned(), value.parse().expect("a number"))
            })
            .collect();
        let pid = child.id();
        let process = agent::discover::Process::read(pid).expect("the process");
        let bias = process.bias(&image.elf).expect("its bias");
        let memory = std::fs::File::open(format!("/proc/{pid}/mem")).expect("its memory");
        Self {
            child,
            memory,
            bias,
            facts,
        }
    }

    pub fn fact(&self, key: &str) -> u64 {
        self.facts
            .iter()
            .find(|(k, _)| k == key)
            .unwrap_or_else(|| panic!("{key}"))
            .1
    }

    fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_exact_at(&mut bytes, address).expect("readable memory");
        bytes
    }

    pub fn word(&self, address: u64, size: u64) -> u64 {
        let mut bytes = self.bytes(address, size as usize);
        bytes.resize(8, 0);
        u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every number that can be read from outside equals what runtime/metrics said inside.
pub fn check_live(path: &Path, image: &GoImage) {
    let live = Live::start(path, image);
    let (o, g) = (
        image.offsets.as_ref().expect("offsets"),
        image.globals.as_ref().expect("globals"),
    );
    let at = |base: u64, field: agent::inspect::FieldLoc| live.word(base + live.bias + field.offset, field.size);
    let (text, len) = (
        live.word(g.build_version + live.bias, 8),
        live.word(g.build_version + live.bias + 8, 8),
    );
    assert_eq!(
        String::from_utf8_lossy(&live.bytes(text, len as usize)),
        image.version.raw
    );
    assert_eq!(live.word(g.gomaxprocs + live.bias, 4), live.fact("gomaxprocs"));
    assert_eq!(
        at(g.memstats, o.memstats.numgc),
        live.fact("/gc/cycles/total:gc-cycles")
    );
    assert_eq!(
        at(g.memstats, o.memstats.numforcedgc),
        live.fact("/gc/cycles/forced:gc-cycles")
    );
    assert_eq!(at(g.work, o.work.cycles), live.fact("/gc/cycles/total:gc-cycles"));
    assert_eq!(at(g.work, o.work.user_forced), 1);
    let phases = [o.work.t_sweep_term, o.work.t_mark, o.work.t_mark_term, o.work.t_end].map(|f| at(g.work, f));
    assert!(phases.is_sorted() && phases[0] > 0, "{phases:?}");
    assert_eq!(at(g.gc_controller, o.gc_controller.gc_percent), 100);

    let stats = |field: agent::inspect::FieldLoc| -> u64 {
        let base = g.memstats + o.memstats.heap_stats.offset;
        (0..3)
            .map(|i| at(base + i * o.heap_stats_size, field))
            .fold(0, u64::wrapping_add)
    };
    let h = &o.heap_stats;
    // The scavenger, new spans and a stack that grows move a few pages between the reading inside and this one.
    let stacks = live.fact("/memory/classes/heap/stacks:bytes");
    assert!(
        stats(h.in_stacks).abs_diff(stacks) <= 64 << 10,
        "{} {stacks}",
        stats(h.in_stacks)
    );
    let released = live.fact("/memory/classes/heap/released:bytes");
    assert!(
        stats(h.released).abs_diff(released) <= 512 << 10,
        "{} {released}",
        stats(h.released)
    );
    let m = &o.memstats;
    let sys = [
        m.stacks_sys,
        m.mspan_sys,
        m.mcache_sys,
        m.buckhash_sys,
        m.gc_misc_sys,
        m.other_sys,
    ];
    let total =
        sys.iter().map(|f| at(g.memstats, *f)).sum::<u64>() + stats(h.committed).wrapping_add(stats(h.released));
    // A moment later than the program's own reading: the heap may have grown by a piece.
    let told = live.fact("/memory/classes/total:bytes");
    assert!(total.abs_diff(told) <= 512 << 10, "{total} {told}");
    let (mut bytes, mut objects) = (stats(h.large_alloc), stats(h.large_alloc_count));
    for class in 0..h.small_alloc_count.size / 8 {
        let count = stats(agent::inspect::FieldLoc {
            offset: h.small_alloc_count.offset + class * 8,
            size: 8,
        });
        objects += count;
        bytes += count * live.word(g.size_class_to_size + live.bias + class * 2, 2);
    }
    // What the program's own printing allocated after its reading is at most a few blocks of the allocator.
    let near = |found: u64, key: &str, slack: u64| {
        let told = live.fact(key);
        assert!(
            found >= told && found - told <= slack,
            "{key}: read {found}, told {told}"
        );
    };
    near(bytes, "/gc/heap/allocs:bytes", 256 << 10);
    near(objects, "/gc/heap/allocs:objects", 8192);

    let mut goroutines = live.word(g.allglen + live.bias, 8);
    let s = &o.sched;
    for field in [s.g_free_n, s.g_free_stack_size, s.g_free_no_stack_size]
        .into_iter()
        .flatten()
    {
        goroutines -= at(g.sched, field);
    }
    let (all_p, count) = (live.word(g.allp + live.bias, 8), live.word(g.allp + live.bias + 8, 8));
    let p_free = o.p.g_free_size.or(o.p.g_free_n).expect("p.gFree");
    for i in 0..count {
        goroutines -= live.word(live.word(all_p + i * 8, 8) + p_free.offset, p_free.size);
    }
    goroutines -= at(g.sched, s.ngsys);
    assert_eq!(goroutines, live.fact("goroutines"));

    let h = &o.time_histogram;
    let samples = |histogram: agent::inspect::FieldLoc| -> u64 {
        let base = g.sched + histogram.offset;
        (0..h.buckets.count as u64)
            .map(|i| {
                at(
                    base + i * 8,
                    agent::inspect::FieldLoc {
                        offset: h.counts.offset,
                        size: 8,
                    },
                )
            })
            .sum()
    };
    if let Some(pauses) = s.stw_total_gc {
        assert_eq!(samples(pauses), live.fact("pauses"));
    }
    near(samples(s.time_to_run.expect("timeToRun")), "latencies", 64);

    // The current g of the main goroutine's thread isn't known from outside; but every g of allgs has its own id.
    let (all_g, count) = (live.word(g.allgs + live.bias, 8), live.word(g.allglen + live.bias, 8));
    let mut ids: Vec<u64> = (0..count)
        .map(|i| live.word(live.word(all_g + i * 8, 8) + o.g.goid.offset, 8))
        .collect();
    ids.retain(|id| *id != 0);
    ids.sort_unstable();
    assert!(ids.contains(&1) && ids.windows(2).all(|w| w[0] != w[1]), "{ids:?}");
    let file = std::fs::File::open(path).expect("the binary");
    let sleeper = (0..count).map(|i| live.word(all_g + i * 8, 8)).find(|gp| {
        let start = live.word(gp + o.g.startpc.offset, 8).wrapping_sub(live.bias);
        image
            .symbols
            .start(&file, start)
            .and_then(|start| image.symbols.lookup(&file, start))
            .is_some_and(|f| f.function == "main.sleep")
    });
    assert!(sleeper.is_some(), "no goroutine that was started with main.sleep");
}

pub fn check_sites(bytes: &[u8], image: &GoImage) {
    for hook in GoHook::ALL {
        // Before go1.22 it has no arguments, and is not used.
        if hook == GoHook::StartWorld && image.version.minor < 22 {
            continue;
        }
        let site = image.sites[&hook].as_ref().unwrap_or_else(|e| panic!("{hook:?}: {e}"));
        let at = site.file_offset as usize;
        assert_eq!(&bytes[at..at + site.bytes.len()], site.bytes, "{hook:?}");
        assert_eq!(site.cost, SiteCost::Emulated, "{hook:?}");
        // Before go1.21 it has a loop and no push: its stack check is left, which repeats only where a stack grows. Its does not.
        let on_own_stack = hook == GoHook::HandOff && image.version.minor < 21 && !site.behind_stack_check;
        // On arm64 the site may be the stack check's own branch, which repeats only where a stack grows: these run on the runtime's own.
        let on_check = image.arch == Arch::Arm64 && !site.behind_stack_check;
        assert!(!site.may_repeat || on_own_stack || on_check, "{hook:?}");
        let function = image.symbols.lookup(&bytes, site.vaddr).expect("a function").function;
        assert!(hook.candidates().contains(&function.as_str()), "{hook:?} in {function}");
    }
}
