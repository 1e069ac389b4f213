//! From a report to the kernel through one control plane and one agent, and what the agent costs
//! while nothing happens.

use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::figure::Figure;
use crate::floors;
use crate::lab::Lab;

const IDLE: Duration = Duration::from_secs(30);
/// What a load needed for the moment is given back some seconds after it.
const SETTLED: Duration = Duration::from_secs(10);

pub(crate) fn figures(folder: &Path) -> anyhow::Result<Vec<Figure>> {
    let mut lab = Lab::start(&folder.join("chain"))?;
    let disk = floors::fdatasync(folder, 1_000)?;
    let (beacons, after) = (lab.beacons()?, floors::fdatasync(folder, 1_000)?);
    let floor = |part| disk.quantile_ms(part).max(after.quantile_ms(part));
    let mut figures = vec![
        Figure::new("beacon_to_kernel_p50_ms", beacons.quantile_ms(0.5), "ms")
            .with_floor(floor(0.5)),
        Figure::new("beacon_to_kernel_p99_ms", beacons.quantile_ms(0.99), "ms")
            .with_floor(floor(0.99)),
    ];
    let before = lab.agent().cpu()?;
    thread::sleep(IDLE);
    let percent = (lab.agent().cpu()? - before).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    figures.push(Figure::new("agent_idle_mib", lab.agent().resident_mib()?, "MiB"));
    figures.push(Figure::new("agent_idle_cpu_percent", percent, "%"));
    lab.fill()?;
    thread::sleep(SETTLED);
    figures.push(Figure::new("agent_100k_mib", lab.agent().resident_mib()?, "MiB"));
    Ok(figures)
}
