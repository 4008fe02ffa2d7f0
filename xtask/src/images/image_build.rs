//! Builds the images of the operator and the data plane.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use flutecast_testbed::image::{Image, Layer, NONROOT, WrittenArchive, base_layer, libraries_of};
use flutecast_testbed::release::{self, version_after};

use super::sbom;

/// A program of this workspace that gets an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Program {
    /// The name of the program and of its crate.
    pub name: &'static str,
    /// The description in the image's labels.
    pub description: &'static str,
    /// The ports on which the program listens when the chart starts it.
    pub ports: &'static [u16],
}

/// The programs that get an image.
pub(super) const PROGRAMS: [Program; 2] = [
    Program {
        name: release::PROGRAMS[0],
        description: "Turns Tenants, Devices and PushFormats into JetStream streams and mapping documents.",
        ports: &[8081],
    },
    Program {
        name: release::PROGRAMS[1],
        description: "Pushes the live parameters of devices to subscribed clients over Server-Sent Events.",
        ports: &[8080, 8081],
    },
];

/// The inputs and settings of an image build.
#[derive(Debug, Clone)]
pub(super) struct ImageBuild {
    /// The root of the workspace.
    pub root: PathBuf,
    /// Cargo's target folder.
    pub target: PathBuf,
    /// The cargo profile.
    pub profile: String,
    /// The image tag and the version that the programs report.
    pub version: String,
    /// True if the programs are built as the next version ([`NEXT_VERSION`]).
    is_next: bool,
    /// The commit, with the suffix `-changed` if the working tree differs; `None` outside git.
    pub revision: Option<String>,
    /// The commit time in seconds since 1970, zero outside git. `SOURCE_DATE_EPOCH` overrides it.
    pub created: i64,
}

/// An image that was built.
#[derive(Debug, Clone)]
pub(super) struct BuiltImage {
    /// The full image name.
    pub name: String,
    /// The path of the archive.
    pub file: PathBuf,
    /// Digests and size.
    pub written: WrittenArchive,
}

impl ImageBuild {
    /// Returns the build of the workspace in `root`. The environment variables `CARGO_TARGET_DIR`,
    /// `FLUTECAST_VERSION` and `SOURCE_DATE_EPOCH` override settings.
    ///
    /// # Errors
    /// Returns an error if the workspace's version can't be read or `SOURCE_DATE_EPOCH` is not a number.
    pub(super) fn of_workspace(root: &Path, profile: &str) -> anyhow::Result<Self> {
        let root = root.canonicalize().with_context(|| format!("{}", root.display()))?;
        let set = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let version = match set("FLUTECAST_VERSION") {
            Some(version) => version,
            None => env!("CARGO_PKG_VERSION").to_owned(),
        };
        let changed = git(&root, &["status", "--porcelain", "--untracked-files=no"])
            .is_none_or(|text| !text.is_empty());
        let revision = git(&root, &["rev-parse", "HEAD"]);
        let created = match set("SOURCE_DATE_EPOCH") {
            Some(text) => text.parse().with_context(|| format!("SOURCE_DATE_EPOCH={text}"))?,
            None => {
                git(&root, &["log", "-1", "--format=%ct"]).and_then(|text| text.parse().ok()).unwrap_or(0)
            }
        };
        Ok(Self {
            target: set("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from),
            profile: profile.to_owned(),
            version,
            revision: revision.map(|revision| if changed { format!("{revision}-changed") } else { revision }),
            created,
            is_next: false,
            root,
        })
    }

    /// Returns the build of the next version, which has another number and one more field of Device. Both
    /// builds share the compiled external crates.
    ///
    /// # Errors
    /// Returns an error if the version does not consist of three numbers.
    pub(super) fn next(mut self) -> anyhow::Result<Self> {
        self.version = version_after(&self.version)?;
        self.is_next = true;
        Ok(self)
    }

    /// Builds the programs and writes `<program>-<version>.tar` (the image) and
    /// `<program>-<version>.spdx.json` into `folder`. For the next version it also writes the
    /// CustomResourceDefinitions, into a folder `crds-<version>`.
    ///
    /// # Errors
    /// Returns an error if a program can't be built or a file can't be written.
    pub(super) fn make(&self, folder: &Path) -> anyhow::Result<Vec<BuiltImage>> {
        self.build()?;
        let paths =
            PROGRAMS.map(|program| self.target.join(profile_folder(&self.profile)).join(program.name));
        let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        if self.is_next {
            self.write_definitions(&folder.join(format!("crds-{}", self.version)))?;
        }
        // Both images share this layer, so a node stores it once.
        let base = base_layer(&paths)?;
        let mut made = Vec::new();
        for (program, path) in PROGRAMS.iter().zip(&paths) {
            made.push(self.image(program, path, base.clone(), folder)?);
        }
        Ok(made)
    }

    /// Writes the CustomResourceDefinitions of the next version, like those of this version in `crds/yaml`.
    fn write_definitions(&self, folder: &Path) -> anyhow::Result<()> {
        let crdgen = self.target.join(profile_folder(&self.profile)).join("crdgen");
        let status = Command::new(&crdgen).arg(folder).status().context("crdgen")?;
        ensure!(status.success(), "{}: {status}", crdgen.display());
        Ok(())
    }

    fn image(
        &self,
        program: &Program,
        path: &Path,
        base: Layer,
        folder: &Path,
    ) -> anyhow::Result<BuiltImage> {
        let created = jiff::Timestamp::from_second(self.created)?.to_string();
        let mut components = sbom::crates_of(&self.root, program.name)?;
        components.extend(sbom::debian_packages_of(&libraries_of(path)?)?);
        let sbom = sbom::spdx(program.name, &self.version, &created, &components);
        let sbom = format!("{sbom:#}\n");
        let name = format!("flutecast.io/{}:{}", program.name, self.version);
        let entrypoint = format!("/{}", program.name);
        let mut own = Layer::default();
        own.program(&entrypoint, path)?;
        own.file("/usr/share/sbom.spdx.json", 0o644, sbom.clone());
        own.file("/usr/share/LICENSE", 0o644, std::fs::read(self.root.join("LICENSE"))?);
        let image = Image {
            name: name.clone(),
            layers: vec![base, own],
            entrypoint: vec![entrypoint],
            user: format!("{NONROOT}:{NONROOT}"),
            env: BTreeMap::new(),
            ports: program.ports.to_vec(),
            labels: self.labels(program, &created),
            created: self.created,
        };
        let file = folder.join(format!("{}-{}.tar", program.name, self.version));
        let written = image.write(&file)?;
        std::fs::write(file.with_extension("spdx.json"), sbom)?;
        Ok(BuiltImage { name, file, written })
    }

    fn labels(&self, program: &Program, created: &str) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        let mut label = |name: &str, text: &str| {
            labels.insert(format!("org.opencontainers.image.{name}"), text.to_owned())
        };
        label("title", program.name);
        label("description", program.description);
        label("version", &self.version);
        label("created", created);
        label("licenses", "Apache-2.0");
        label("vendor", "Flutecast");
        if let Some(revision) = &self.revision {
            label("revision", revision);
        }
        labels
    }

    /// Builds the programs reproducibly: the bytes do not depend on the paths of the workspace, cargo's home
    /// and the target folder.
    fn build(&self) -> anyhow::Result<()> {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
        let mut places = vec![(self.root.clone(), "/flutecast"), (self.target.clone(), "/target")];
        places.extend(home.map(|home| (home, "/cargo")));
        let flags = |name: &str| {
            places.iter().map(|(from, to)| format!("{name}={}={to}", from.display())).collect::<Vec<_>>()
        };
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--locked", "--quiet", "--bins", "--profile", &self.profile]);
        cargo.args(PROGRAMS.iter().flat_map(|program| ["--package", program.name]));
        if self.is_next {
            cargo.args(["--package", "flutecast-crds"]);
            cargo.args(PROGRAMS.iter().flat_map(|program| ["--features".into(), next_feature(program.name)]));
        }
        cargo.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target).env("CARGO_INCREMENTAL", "0");
        cargo
            .env_remove("RUSTFLAGS")
            .env("CARGO_ENCODED_RUSTFLAGS", flags("--remap-path-prefix").join("\u{1f}"));
        // Some crates contain C or assembly code.
        cargo.env("CFLAGS", flags("-ffile-prefix-map").join(" "));
        cargo.env("FLUTECAST_VERSION", &self.version).env("SOURCE_DATE_EPOCH", self.created.to_string());
        let status = cargo.status().context("cargo build")?;
        ensure!(status.success(), "cargo build --profile {}: {status}", self.profile);
        Ok(())
    }
}

/// The cargo feature of both programs that builds them as the next version.
pub(super) const NEXT_VERSION: &str = "next-version";

fn next_feature(package: &str) -> String {
    format!("{package}/{NEXT_VERSION}")
}

/// Returns the folder of a profile in cargo's target folder.
fn profile_folder(profile: &str) -> &str {
    if profile == "dev" { "debug" } else { profile }
}

/// Returns the output of git; `None` if this is no repository.
fn git(root: &Path, args: &[&str]) -> Option<String> {
    // The checkout may belong to another user, which git rejects by default.
    let output =
        Command::new("git").args(["-c", "safe.directory=*"]).args(args).current_dir(root).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
