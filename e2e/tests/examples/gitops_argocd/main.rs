//! `make gitops-soak`: measures Argo CD with a factory, and writes docs/generated/gitops-argocd.md.
//!
//! `--modes legacy,structured-merge,server-side --minutes 10`: each way in which Argo CD compares, for so
//! long, with devices that send. `--scale 2000/1,2000/10`: so many Devices in so many Applications.
//! `--into FILE`: only the sections that were measured are written again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "it measures with what tests use")]

#[path = "../../cluster/counting.rs"]
#[allow(dead_code, reason = "tests need all of it")]
mod counting;
#[path = "../../cluster/gitops.rs"]
mod gitops;
#[path = "../../cluster/plant_1.rs"]
mod plant_1;

mod modes;
mod scale;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use flutecast_testbed::cluster::Cluster;

/// The text of the file before anything is measured.
const EMPTY: &str = "\
# Argo CD with a factory: what was measured

Written by `make gitops-soak`; [gitops.md](../gitops.md) says what follows from it.

<!-- modes -->
<!-- /modes -->

<!-- scale -->
<!-- /scale -->
";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (mut modes, mut minutes, mut scale, mut into) = (String::new(), 10, String::new(), None);
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().with_context(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--modes" => modes = value,
            "--minutes" => minutes = value.parse()?,
            "--scale" => scale = value,
            "--into" => into = Some(value),
            _ => bail!("unknown: {name}"),
        }
    }
    let into = into.context("--into FILE")?;
    let cluster = Cluster::shared().await?;
    if !modes.is_empty() {
        let modes: Vec<_> = modes.split(',').map(str::parse).collect::<Result<_, _>>()?;
        let table = modes::measure(&cluster, &modes, Duration::from_secs(minutes * 60)).await;
        write(Path::new(&into), "modes", &table)?;
    }
    if !scale.is_empty() {
        let sizes: Vec<_> = scale.split(',').map(str::parse).collect::<Result<_, _>>()?;
        let table = scale::measure(&cluster, &sizes).await?;
        write(Path::new(&into), "scale", &table)?;
    }
    Ok(())
}

/// Writes a section of the file, and what was measured under which circumstances.
fn write(file: &Path, section: &str, table: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|_| EMPTY.to_owned());
    let (begin, end) = (format!("<!-- {section} -->\n"), format!("<!-- /{section} -->"));
    let (before, rest) = text.split_once(&begin).with_context(|| format!("{begin} is missing"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("{end} is missing"))?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    let (date, processors) = (today(), std::thread::available_parallelism()?);
    let when = format!(
        "Measured on {date}, {processors} processors for everything, load average {load} at the end.\n"
    );
    std::fs::write(file, format!("{before}{begin}{table}\n{when}{end}{after}"))?;
    eprintln!("{table}\n{when}");
    Ok(())
}

fn today() -> String {
    let output = std::process::Command::new("date").arg("+%Y-%m-%d").output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
