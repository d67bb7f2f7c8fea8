use agent::{aggregate::Store, attach::kernel::*, discover::Process, kernel::read_layout};
use agent_common::{histogram::Series, target::*};
use aya::programs::UProbe;
static HOOKS: &[Hook] = &[
    Hook {
        signal: "exec",
        alternatives: &[Alternative {
            name: "tp",
            programs: &[("process_exec", Point::TpBtf("sched_process_exec"))],
        }],
    },
    Hook {
        signal: "run_queue",
        alternatives: &[Alternative {
            name: "tp",
            programs: &[
                ("thread_wakeup", Point::TpBtf("sched_wakeup")),
                ("thread_wakeup_new", Point::TpBtf("sched_wakeup_new")),
                ("thread_switch", Point::TpBtf("sched_switch")),
            ],
        }],
    },
    Hook {
        signal: "connect",
        alternatives: &[Alternative {
            name: "tp",
            programs: &[("net_set_state", Point::TpBtf("inet_sock_set_state"))],
        }],
    },
    Hook {
        signal: "request",
        alternatives: &[
            Alternative {
                name: "fexit",
                programs: &[("net_send_inet", Point::FExit("inet_sendmsg"))],
            },
            Alternative {
                name: "tp",
                programs: &[
                    ("net_send", Point::TpBtf("sock_send_length")),
                    ("net_recv", Point::TpBtf("sock_recv_length")),
                ],
            },
        ],
    },
];
fn main() -> anyhow::Result<()> {
    let l = read_layout()?;
    println!("{l:?}");
    let mut e = load(&l, 1 << 20)?;
    for s in attach(&mut e, HOOKS)? {
        println!("{s:?}");
    }
    for name in [
        "go_execute",
        "go_runqput",
        "go_gosched",
        "go_exitsyscall",
        "go_netpoll",
        "go_injectglist",
        "go_gc_cycle",
        "tokio_poll_begin",
        "tokio_poll_end",
        "tokio_park_begin",
        "tokio_park_end",
        "tokio_schedule",
    ] {
        let p: &mut UProbe = e.program_mut(name).unwrap().try_into()?;
        println!("{name} {:?}", p.load().err());
    }
    let pid: u32 = std::env::args().nth(1).unwrap().parse()?;
    let ports = Process::read(pid)?.listening_ports()?;
    println!("{ports:?}");
    let mut ls: aya::maps::HashMap<_, agent_common::net::Listener, u32> =
        aya::maps::HashMap::try_from(e.take_map("LISTENERS").unwrap())?;
    for p in ports {
        ls.insert(
            agent_common::net::Listener {
                tgid: pid,
                port: p as u32,
            },
            1,
            0,
        )?;
    }
    let mut ts: aya::maps::HashMap<_, u32, Target> = aya::maps::HashMap::try_from(e.take_map("TARGETS").unwrap())?;
    ts.insert(
        pid,
        Target {
            slot: 1,
            flags: 0,
            slow_request: 100_000_000,
            ..Default::default()
        },
        0,
    )?;
    let mut bits: aya::maps::Array<_, u64> = aya::maps::Array::try_from(e.take_map("TARGET_BITS").unwrap())?;
    bits.set(pid / 64, 1u64 << (pid % 64), 0)?;
    let store = Store::new(&mut |n| e.take_map(n))?;
    let t = std::time::Instant::now();
    while t.elapsed().as_secs() < 6 {
        std::thread::sleep(std::time::Duration::from_secs(2));
        let r = store.read()?;
        for s in [
            Series::RunQueue,
            Series::Connect,
            Series::ServerRequest,
            Series::ClientRequest,
        ] {
            for (id, h) in r.split(1, s) {
                println!(
                    "{s:?} {:?} n={} p50={:?} p99={:?}",
                    r.peers.get(&id),
                    h.count(),
                    h.quantile(0.5),
                    h.quantile(0.99)
                );
            }
        }
        println!("loss {:?}", r.loss);
    }
    Ok(())
}
