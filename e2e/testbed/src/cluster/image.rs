//! The images that every cluster has: the sandbox of pods, which tests also run in their pods, and CoreDNS.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use crate::image::Image;
use crate::tools;
use flutecast_testkit::GoTool;

/// The image of every pod's sandbox and of tests' pods. Its program `/probe` (e2e/testbed/tools/probe) only
/// waits unless it gets arguments.
pub const PROBE_IMAGE: &str = "flutecast.io/probe:e2e";
/// The image of the cluster's DNS.
pub(super) const COREDNS_IMAGE: &str = "flutecast.io/coredns:e2e";

/// Returns the archives of both images. Blocks.
///
/// # Errors
/// As [`archive`].
pub(super) fn archives() -> anyhow::Result<[PathBuf; 2]> {
    let pause = archive(tools::PROBE, PROBE_IMAGE, &["pause"])?;
    Ok([pause, archive(tools::COREDNS, COREDNS_IMAGE, &[])?])
}

/// Returns the archive of a tool's image, which is packed once for each version and kept beside the tool.
/// Blocks.
///
/// # Errors
/// If the tool can't be built or packed.
pub(crate) fn archive(tool: GoTool, name: &str, args: &[&str]) -> anyhow::Result<PathBuf> {
    let program = tool.path()?;
    let archive = program.with_extension("image.tar");
    // Compressing tens of megabytes without optimisation is slow, so concurrent tests share one archive.
    let lock = fs::File::create(program.with_extension("image.lock"))?;
    lock.lock()?;
    if !archive.exists() {
        let mut image = Image::of_program(name, &program)?;
        image.entrypoint.extend(args.iter().map(|arg| (*arg).to_owned()));
        image.write(&archive).with_context(|| format!("{}", archive.display()))?;
    }
    Ok(archive)
}
