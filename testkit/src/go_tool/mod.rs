//! Builds Go programs from pinned modules into the cache folder, once per machine.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

mod pinned;

/// Returns the folder of built tools: `$XDG_CACHE_HOME/flutecast/tools`, or else `~/.cache/flutecast/tools`.
///
/// # Errors
/// Returns an error if neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn tools_folder() -> anyhow::Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    Ok(cache.context("set HOME or XDG_CACHE_HOME: built tools are kept there")?.join("flutecast/tools"))
}

/// Returns the path of a file of a published Go module, such as a definition of its kinds. It is copied into
/// the folder of built tools first if it isn't there, so that later it needs neither Go nor a download.
///
/// # Errors
/// Returns an error if the module can't be downloaded or has no such file.
pub fn module_file(module: &str, version: &str, path: &str) -> anyhow::Result<PathBuf> {
    // Outside of all modules, so with the Go of this machine.
    file_of_module(module, version, path, &std::env::temp_dir())
}

/// As [`module_file`], with the Go that the go.mod in the folder `near` asks for.
fn file_of_module(module: &str, version: &str, path: &str, near: &Path) -> anyhow::Result<PathBuf> {
    let module = format!("{module}@{version}");
    let file = tools_folder()?.join("modules").join(module.replace('/', "+")).join(path);
    if file.is_file() {
        return Ok(file);
    }
    let into = file.parent().context("a file has a folder")?;
    fs::create_dir_all(into).with_context(|| format!("{}", into.display()))?;
    let mut go = Command::new("go");
    go.args(["mod", "download", "-json", &module]).current_dir(near).env("GOTOOLCHAIN", TOOLCHAIN);
    let output = go.output().context("go can't be started")?;
    let said = || String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "go mod download {module} failed: {}", said());
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).with_context(said)?;
    let folder = answer["Dir"].as_str().with_context(said)?;
    let mut partial = tempfile::NamedTempFile::new_in(into)?;
    partial.write_all(&fs::read(PathBuf::from(folder).join(path)).with_context(|| path.to_owned())?)?;
    partial.persist(&file)?;
    Ok(file)
}

/// A go.mod may ask for a newer Go than this machine has, which Go then fetches.
const TOOLCHAIN: &str = "auto";

/// A program of a pinned Go module.
#[derive(Debug, Clone, Copy)]
pub struct GoTool {
    pub name: &'static str,
    /// The package to build.
    pub package: &'static str,
    /// The module whose version is also the program's version.
    pub module: &'static str,
    /// The name of the folder in the cache, without the version. Programs of one module share it.
    pub cache: &'static str,
    /// The folder with the go.mod that pins the module.
    pub pinned_in: &'static str,
    /// The text of that go.mod.
    pub go_mod: &'static str,
    /// Approximate duration of a build on two cores.
    pub minutes: u32,
    /// The source of a program that belongs to this repository. The program's version is a digest of this
    /// source and the go.mod.
    pub source: Option<&'static str>,
    pub stamp: Stamp,
}

/// The way in which a program gets its version, beside what Go itself records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// No variable: the program already has its version or does not need one.
    Nothing,
    /// Sets this variable of the program to the version.
    Version(&'static str),
    /// Sets the three version variables of Kubernetes: clients and kubelet compare them with the server's.
    Kubernetes,
}

impl GoTool {
    /// Returns the pinned version, such as `v1.37.2`. For a program of this repository it is the start of the
    /// SHA-256 digest of its source and go.mod.
    ///
    /// # Errors
    /// Returns an error if the go.mod does not require the module.
    pub fn version(&self) -> anyhow::Result<String> {
        if let Some(source) = self.source {
            let digest = Sha256::new_with_prefix(source).chain_update(self.go_mod).finalize();
            let digest = HEXLOWER.encode(&digest);
            return Ok(digest[..12].to_owned());
        }
        pinned_version(self.go_mod, self.module)
            .map(str::to_owned)
            .with_context(|| format!("{}/go.mod doesn't name {}", self.pinned_in, self.module))
    }

    /// Returns the cache folder of this version.
    fn folder(&self) -> anyhow::Result<PathBuf> {
        Ok(tools_folder()?.join(format!("{}-{}", self.cache, self.version()?)))
    }

    /// Returns whether this version is in the cache.
    ///
    /// # Errors
    /// Returns an error if the cache folder can't be determined.
    pub fn is_built(&self) -> anyhow::Result<bool> {
        Ok(self.folder()?.join(self.name).is_file())
    }

    /// Returns the program's path. Builds the program first if it is not in the cache, which blocks for
    /// minutes.
    ///
    /// # Errors
    /// Returns an error if the program can't be built.
    pub fn path(&self) -> anyhow::Result<PathBuf> {
        let program = self.folder()?.join(self.name);
        if !program.is_file() {
            build(std::slice::from_ref(self))?;
        }
        Ok(program)
    }

    /// Returns the path of a file of the program's module: see [`module_file`].
    ///
    /// # Errors
    /// As [`module_file`].
    pub fn module_file(&self, path: &str) -> anyhow::Result<PathBuf> {
        file_of_module(self.module, &self.version()?, path, Path::new(self.pinned_in))
    }

    /// Builds those of `tools` that are not in the cache, and writes the progress to `out`. Adjacent tools of
    /// one module share one `go build`, which links one program while it compiles another.
    ///
    /// # Errors
    /// Returns an error if a program can't be built.
    pub fn build_missing(tools: &[Self], out: &mut impl Write) -> anyhow::Result<()> {
        let mut missing = Vec::new();
        for tool in tools {
            if !tool.is_built()? {
                missing.push(*tool);
            }
        }
        let batches: Vec<_> = missing.chunk_by(|one, next| one.cache == next.cache).collect();
        for (index, batch) in batches.iter().enumerate() {
            let names = batch.iter().map(|tool| tool.name).collect::<Vec<_>>().join(", ");
            let minutes: u32 = batch.iter().map(|tool| tool.minutes).sum();
            writeln!(
                out,
                "[{}/{}] building {names} once for this machine (up to {minutes} min on two cores)",
                index + 1,
                batches.len()
            )?;
            let start = Instant::now();
            build(batch)?;
            writeln!(out, "[{}/{}] {} s", index + 1, batches.len(), start.elapsed().as_secs())?;
        }
        Ok(())
    }

    fn linker_flags(&self, version: &str) -> String {
        let small = "-s -w";
        match self.stamp {
            Stamp::Nothing => small.to_owned(),
            Stamp::Version(variable) => format!("{small} -X {variable}={version}"),
            Stamp::Kubernetes => {
                let mut parts = version.trim_start_matches('v').split('.');
                let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                let package = "k8s.io/component-base/version";
                format!(
                    "{small} -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X \
                     {package}.gitMinor={minor}"
                )
            }
        }
    }
}

/// Builds programs of one module. Waits while another process builds one of them.
fn build(tools: &[GoTool]) -> anyhow::Result<()> {
    let Some(first) = tools.first() else { return Ok(()) };
    let (folder, version) = (first.folder()?, first.version()?);
    fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    let mut locks = Vec::new();
    for tool in tools {
        let lock = fs::File::create(folder.join(format!("{}.lock", tool.name)))?;
        lock.lock()?;
        locks.push(lock);
    }
    let missing: Vec<_> = tools.iter().filter(|tool| !folder.join(tool.name).is_file()).collect();
    // Programs are built in another folder and renamed, so that a failed build never leaves a partial
    // program.
    let partial = tempfile::Builder::new().prefix("partial-").tempdir_in(&folder)?;
    let target = match missing.as_slice() {
        [] => return Ok(()),
        // The last part of a package's path isn't always the program's name.
        [one] => partial.path().join(one.name),
        _ => partial.path().join(""),
    };
    let output = Command::new("go")
        // The linker would drop debug information anyway, so it is not compiled.
        .args([
            "build",
            "-trimpath",
            "-gcflags=all=-dwarf=false",
            "-ldflags",
            &first.linker_flags(&version),
            "-o",
        ])
        .arg(target)
        .args(missing.iter().map(|tool| tool.package))
        .current_dir(first.pinned_in)
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", TOOLCHAIN)
        .output()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => anyhow::anyhow!(
                "{} {version} isn't built yet, and Go to build it isn't on PATH: install Go 1.26 or newer",
                first.name
            ),
            _ => anyhow::anyhow!("go can't be started: {error}"),
        })?;
    ensure!(
        output.status.success(),
        "go build in {} failed:\n{}",
        first.pinned_in,
        String::from_utf8_lossy(&output.stderr)
    );
    for tool in missing {
        let program = folder.join(tool.name);
        fs::rename(partial.path().join(tool.name), &program)
            .with_context(|| format!("{}", program.display()))?;
    }
    Ok(())
}

/// Returns the version of `module` in a go.mod, such as `v2.15.2`.
fn pinned_version<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word == "require");
        (words.next() == Some(module)).then(|| words.next()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tool_is_pinned() {
        for tool in GoTool::LOCAL {
            let version = tool.version().unwrap();
            assert!(version.starts_with('v') || tool.source.is_some(), "{tool:?}: {version}");
        }
        assert_eq!(pinned_version("tool a/b\nrequire a/b v1.2.3 // indirect", "a/b"), Some("v1.2.3"));
    }

    #[test]
    fn kubernetes_programs_carry_their_version() {
        let flags = GoTool::KUBECTL.linker_flags("v1.37.2");
        for part in ["gitVersion=v1.37.2", "gitMajor=1", "gitMinor=37"] {
            assert!(flags.contains(part), "{flags}");
        }
    }
}
