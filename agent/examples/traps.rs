//! What traps alone cost a process: `traps PID…`, as root, puts an empty program at every place where the plan has a probe of
//! plane 2, and says "watching" of each process. Until it is interrupted. `cargo xtask bench overhead` measures with it.

use agent::{
    attach::uprobe::{self, Links, LoadedExe},
    discover::Process,
    inspect::inspect,
    intake::kernel_log::KernelLog,
    pipeline, signals,
};
use anyhow::{Context as _, Result};

const EMPTY: &str = "calibrate";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (mut object, _hooks) = pipeline::load(1 << 20, KernelLog::Off, &signals::NAMES.map(str::to_owned), &[])?;
    let mut links = Links::default();
    for pid in std::env::args().skip(1) {
        let process = Process::read(pid.parse().with_context(|| format!("{pid:?} is no pid"))?)?;
        let bytes = std::fs::read(process.exe_path()).with_context(|| format!("process {pid}: its executable"))?;
        let image = inspect(&bytes)?.with_context(|| format!("process {pid}: neither Go nor tokio"))?;
        let bias = process
            .bias(image.elf())
            .with_context(|| format!("process {pid} is not where its executable says"))?;
        let exe = LoadedExe::of(&process, bias);
        let mut plan = signals::plan::plan(&*image, bias, &[signals::go::gc::NAME.to_owned()]);
        for probe in &mut plan.probes {
            probe.program = EMPTY;
            uprobe::attach(&mut object, &exe, probe, &mut links)?;
        }
        println!("traps: watching {pid}: {} empty probes", plan.probes.len());
    }
    tokio::signal::ctrl_c().await?;
    Ok(())
}
