//! The images that every cluster has: the sandbox of pods, which is also what pods of tests run, and CoreDNS.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use crate::image::Image;
use crate::tools;
use flutecast_testkit::GoTool;

/// The image of every pod's sandbox, and of pods of tests: it holds `/probe` (e2e/testbed/tools/probe), which
/// only waits unless it gets arguments.
pub const PROBE_IMAGE: &str = "flutecast.io/probe:e2e";
/// The image of the cluster's DNS.
pub(super) const COREDNS_IMAGE: &str = "flutecast.io/coredns:e2e";

/// The archives of both, packed once for each version of their programs and kept beside them. Blocks.
///
/// # Errors
/// If one can't be built or packed.
pub(super) fn archives() -> anyhow::Result<[PathBuf; 2]> {
    let pause = archive(tools::PROBE, PROBE_IMAGE, &["pause"])?;
    Ok([pause, archive(tools::COREDNS, COREDNS_IMAGE, &[])?])
}

/// The archive of a tool's image, packed once for each version and kept beside it. Blocks.
///
/// # Errors
/// If the tool can't be built or packed.
pub(crate) fn archive(tool: GoTool, name: &str, args: &[&str]) -> anyhow::Result<PathBuf> {
    let program = tool.path()?;
    let archive = program.with_extension("image.tar");
    // Compressing tens of megabytes without optimisation takes longer than the rest of a start.
    let lock = fs::File::create(program.with_extension("image.lock"))?;
    lock.lock()?;
    if !archive.exists() {
        let mut image = Image::of_program(name, &program)?;
        image.entrypoint.extend(args.iter().map(|arg| (*arg).to_owned()));
        image.write(&archive).with_context(|| format!("{}", archive.display()))?;
    }
    Ok(archive)
}
