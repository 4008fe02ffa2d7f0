//! The lowest layer of every image: this machine's C library, users, CA certificates.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::{Layer, NONROOT};

/// The certificates of Debian's package ca-certificates. Administrators add their own to /etc/ssl/certs,
/// which don't belong in an image.
const CERTIFICATES: &str = "/usr/share/ca-certificates/mozilla";

/// Returns the layer below `programs`: the shared libraries that they need, users, name resolution, CA
/// certificates and `/tmp`. There is no shell or other program.
///
/// # Errors
/// If a library is missing or can't be read.
pub fn base_layer(programs: &[&Path]) -> anyhow::Result<Layer> {
    let mut layer = Layer::default();
    let mut libraries = BTreeSet::new();
    for program in programs {
        libraries.extend(libraries_of(program)?);
    }
    for library in &libraries {
        let path = library.to_str().with_context(|| format!("{}", library.display()))?;
        layer.program(path, library)?;
    }
    let users = format!("root:x:0:0:root:/:/nologin\nnonroot:x:{NONROOT}:{NONROOT}:nonroot:/:/nologin\n");
    let groups = format!("root:x:0:\nnonroot:x:{NONROOT}:\n");
    layer.file("/etc/passwd", 0o644, users).file("/etc/group", 0o644, groups);
    // Kubernetes writes /etc/hosts and /etc/resolv.conf; both are used, in this order.
    layer.file("/etc/nsswitch.conf", 0o644, "hosts: files dns\n");
    layer.folder("/tmp", 0o1777);
    if let Some(certificates) = certificates()? {
        layer.file("/etc/ssl/certs/ca-certificates.crt", 0o644, certificates);
    }
    Ok(layer)
}

/// Returns the shared libraries of a program, including the loader; empty if it is linked statically.
///
/// # Errors
/// If `ldd` or a library is missing.
pub fn libraries_of(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    ensure!(program.is_file(), "{} is not there", program.display());
    let output = Command::new("ldd").arg(program).env("LC_ALL", "C").output().context("ldd")?;
    let (text, complaint) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if complaint.contains("not a dynamic executable") || text.contains("statically linked") {
        return Ok(Vec::new());
    }
    ensure!(output.status.success(), "ldd {}: {complaint}", program.display());
    parse_ldd(&text).with_context(|| format!("ldd {}", program.display()))
}

/// Parses lines such as `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)` and `/lib64/ld-linux-x86-64.so.2
/// (0x…)`.
fn parse_ldd(text: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        ensure!(!line.ends_with("not found"), "{line}");
        let path = line.split_once("=> ").map_or(line, |(_, path)| path);
        let path = path.split(" (").next().unwrap_or_default();
        // linux-vdso.so.1 is provided by the kernel and isn't a file.
        if path.starts_with('/') {
            found.push(PathBuf::from(path));
        }
    }
    found.sort();
    Ok(found)
}

/// Returns all certificates in one file; `None` if Debian's package isn't installed.
fn certificates() -> anyhow::Result<Option<Vec<u8>>> {
    let folder = Path::new(CERTIFICATES);
    if !folder.is_dir() {
        return Ok(None);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        files.push(entry?.path());
    }
    files.sort();
    let mut all = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "crt")) {
        all.extend(std::fs::read(file).with_context(|| format!("{}", file.display()))?);
        if !all.ends_with(b"\n") {
            all.push(b'\n');
        }
    }
    Ok(Some(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 \
         (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected =
            ["/lib/x86_64-linux-gnu/libgcc_s.so.1", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse_ldd(text).unwrap(), expected);
        let missing = parse_ldd("\tlibnothing.so.1 => not found\n").unwrap_err().to_string();
        assert!(missing.contains("libnothing.so.1"), "{missing}");
        let own = std::env::current_exe().unwrap();
        assert!(libraries_of(&own).unwrap().iter().any(|library| library.ends_with("libc.so.6")));
    }
}
