//! Builds the images of operator and data plane without a container engine (`make images`).

mod image_build;
mod sbom;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;
use flutecast_testbed::image::Image;
use flutecast_testkit::in_repository;

use image_build::{BuiltImage, ImageBuild};

#[derive(Debug, Args)]
pub struct ImageArgs {
    /// Folder for the archives (default: `images` in cargo's target folder).
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// The cargo profile of the programs.
    #[arg(long, value_name = "NAME", default_value = "image")]
    profile: String,

    /// Builds the last commit again from scratch, in another folder, and compares the results. Takes as long
    /// as a first build.
    #[arg(long)]
    twice: bool,

    /// Builds the next version for tests of upgrades (the feature `next-version`), and writes its
    /// CustomResourceDefinitions.
    #[arg(long, conflicts_with = "twice")]
    next: bool,

    /// Builds only an image of another program of this machine, for tests
    /// (`nats-server:test=/usr/bin/nats-server`).
    #[arg(long, value_name = "NAME:TAG=PROGRAM", conflicts_with_all = ["twice", "next"])]
    of: Vec<String>,
}

/// Builds the images that `arguments` select.
///
/// # Errors
/// Returns an error if an image can't be built or written, or if two builds differ.
pub fn run(arguments: ImageArgs) -> anyhow::Result<()> {
    let mut build = ImageBuild::of_workspace(&in_repository(""), &arguments.profile)?;
    let folder = arguments.out.unwrap_or_else(|| build.target.join("images"));
    if !arguments.of.is_empty() {
        return arguments.of.iter().try_for_each(|of| make_of(of, &folder));
    }
    if arguments.twice {
        ensure!(
            build.revision.as_ref().is_some_and(|revision| !revision.ends_with("-changed")),
            "commit first: only a commit can be compared"
        );
    }
    let begin = Instant::now();
    if arguments.next {
        build = build.next()?;
    }
    let made = build.make(&folder)?;
    let mut out = std::io::stdout().lock();
    for image in &made {
        let megabytes = image.written.bytes as f64 / 1e6;
        writeln!(
            out,
            "{} {} ({megabytes:.1} MB): {}",
            image.name,
            image.written.manifest,
            image.file.display()
        )?;
    }
    writeln!(out, "made in {:.0} s", begin.elapsed().as_secs_f64())?;
    if arguments.twice {
        let second = make_elsewhere(&build, &arguments.profile)?;
        compare(&made, &second)?;
        writeln!(out, "a second build in another folder gives the same digests")?;
    }
    Ok(())
}

/// Writes `<program>-<tag>.tar` with an existing program.
fn make_of(of: &str, folder: &Path) -> anyhow::Result<()> {
    let (name, program) = of.split_once('=').context("--of wants NAME:TAG=PROGRAM")?;
    let (name_only, tag) = name.rsplit_once(':').context("--of wants NAME:TAG=PROGRAM")?;
    let short = name_only.rsplit('/').next().unwrap_or(name_only);
    let file = folder.join(format!("{short}-{tag}.tar"));
    let written = Image::of_program(name, Path::new(program))?.write(&file)?;
    writeln!(std::io::stdout(), "{name} {}: {}", written.manifest, file.display())?;
    Ok(())
}

/// Builds the images of the last commit in a fresh clone with its own target folder.
fn make_elsewhere(build: &ImageBuild, profile: &str) -> anyhow::Result<Vec<BuiltImage>> {
    let elsewhere = tempfile::Builder::new().prefix("flutecast-images-").tempdir()?;
    let clone = elsewhere.path().join("another/clone");
    let status = Command::new("git")
        .args(["-c", "safe.directory=*", "clone", "--quiet", "--no-hardlinks"])
        .args([&build.root, &clone])
        .status()?;
    ensure!(status.success(), "git clone: {status}");
    let mut second = ImageBuild::of_workspace(&clone, profile)?;
    second.target = elsewhere.path().join("built");
    second.make(&elsewhere.path().join("images"))
}

fn compare(first: &[BuiltImage], second: &[BuiltImage]) -> anyhow::Result<()> {
    for (a, b) in first.iter().zip(second) {
        ensure!(
            a.name == b.name && a.written == b.written,
            "{} is {:?} here and {:?} in another folder",
            a.name,
            a.written,
            b.written
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
