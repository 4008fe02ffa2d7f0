//! Programs in Go that are built once per machine, from a pinned module, into the cache folder.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

mod pinned;

/// The folder that holds built tools: `$XDG_CACHE_HOME/flutecast/tools`, else `~/.cache/flutecast/tools`.
///
/// # Errors
/// If neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn tools_folder() -> anyhow::Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    Ok(cache.context("set HOME or XDG_CACHE_HOME: built tools are kept there")?.join("flutecast/tools"))
}

/// A program of a pinned Go module.
#[derive(Debug, Clone, Copy)]
pub struct GoTool {
    pub name: &'static str,
    /// The package to build.
    pub package: &'static str,
    /// The module whose version is the program's.
    pub module: &'static str,
    /// The name of the folder in the cache, without the version. Programs of one module share it.
    pub cache: &'static str,
    /// The folder with the go.mod that pins the module.
    pub pinned_in: &'static str,
    /// The text of that go.mod.
    pub go_mod: &'static str,
    /// Minutes that a build takes on two cores, roughly.
    pub minutes: u32,
    /// The source of a program of this repository. Its version is a digest of this and the go.mod.
    pub source: Option<&'static str>,
    pub stamp: Stamp,
}

/// How a program learns its version, beside what Go itself records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// It knows by itself, or nobody asks it.
    Nothing,
    /// This variable of the program is set to the version.
    Version(&'static str),
    /// Kubernetes' three variables: clients and kubelet compare them with the server's.
    Kubernetes,
}

impl GoTool {
    /// The pinned version, such as `v1.37.2`; of our own source, with its go.mod, the beginning of the
    /// SHA-256.
    ///
    /// # Errors
    /// When its go.mod doesn't name the module.
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

    /// Where the program is or will be, and its version.
    fn location(&self) -> anyhow::Result<(PathBuf, String)> {
        let version = self.version()?;
        Ok((tools_folder()?.join(format!("{}-{version}", self.cache)), version))
    }

    /// Whether this version is in the cache folder.
    ///
    /// # Errors
    /// When there is no cache folder.
    pub fn is_built(&self) -> anyhow::Result<bool> {
        Ok(self.location()?.0.join(self.name).is_file())
    }

    /// The program's path. Builds it if this version isn't in the cache folder yet, which can take minutes;
    /// blocks meanwhile.
    ///
    /// # Errors
    /// When it can't be built; says what is missing.
    pub fn path(&self) -> anyhow::Result<PathBuf> {
        let (folder, version) = self.location()?;
        let program = folder.join(self.name);
        if program.is_file() {
            return Ok(program);
        }
        fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
        // Tests run as parallel processes: one builds, the others wait for it.
        let lock = fs::File::create(folder.join(format!("{}.lock", self.name)))?;
        lock.lock()?;
        if !program.is_file() {
            self.build(&folder, &program, &version)?;
        }
        Ok(program)
    }

    /// Builds those of `tools` that this machine hasn't got yet, and tells `out` which, and how many are
    /// still to come.
    ///
    /// # Errors
    /// When one can't be built; says what is missing.
    pub fn build_missing(tools: &[Self], out: &mut impl Write) -> anyhow::Result<()> {
        let mut missing = Vec::new();
        for tool in tools {
            if !tool.is_built()? {
                missing.push(tool);
            }
        }
        for (index, tool) in missing.iter().enumerate() {
            let (number, count, Self { name, minutes, .. }) = (index + 1, missing.len(), tool);
            write!(
                out,
                "[{number}/{count}] building {name} once for this machine (up to {minutes} min on two cores) "
            )?;
            out.flush()?;
            let start = Instant::now();
            tool.path()?;
            writeln!(out, "{} s", start.elapsed().as_secs())?;
        }
        Ok(())
    }

    fn build(&self, folder: &Path, program: &Path, version: &str) -> anyhow::Result<()> {
        // Built under another name and renamed, so that a broken build never looks like a program.
        let partial = folder.join(format!("{}.partial", self.name));
        let output = Command::new("go")
            .args(["build", "-trimpath", "-ldflags", &self.linker_flags(version), "-o"])
            .arg(&partial)
            .arg(self.package)
            .current_dir(self.pinned_in)
            .env("CGO_ENABLED", "0")
            .output()
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => anyhow::anyhow!(
                    "{} {version} isn't built yet, and Go to build it isn't on PATH: install Go 1.26 or newer",
                    self.name
                ),
                _ => anyhow::anyhow!("go can't be started: {error}"),
            })?;
        ensure!(
            output.status.success(),
            "go build {} in {} failed:\n{}",
            self.package,
            self.pinned_in,
            String::from_utf8_lossy(&output.stderr)
        );
        fs::rename(&partial, program).with_context(|| format!("{}", program.display()))
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
                    "{small} -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
                )
            }
        }
    }
}

/// The version of `module` in a go.mod, such as `v2.15.2`.
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
