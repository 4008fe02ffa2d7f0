//! The bill of materials of an image, in SPDX 2.3: what is linked into the program and what lies beside it,
//! no more.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

/// One thing that an image is made of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Component {
    /// Its name where it comes from.
    pub name: String,
    /// Its version there.
    pub version: String,
    /// Its licence as an SPDX expression; none: not told.
    pub licence: Option<String>,
    /// The SHA-256 digest of its source, in hexadecimal; none: it has no source archive of its own.
    pub sha256: Option<String>,
    /// The package URL, such as `pkg:cargo/tokio@1.54.0`.
    pub purl: String,
}

/// The crates that are linked into `package`, with the digests that `Cargo.lock` pins. Build scripts and
/// macros run while it is built and are not part of it.
///
/// # Errors
/// When cargo fails.
pub fn crates_of(root: &Path, package: &str) -> anyhow::Result<Vec<Component>> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "tree",
            "--locked",
            "--package",
            package,
            "--edges",
            "normal,no-proc-macro",
            "--prefix",
            "none",
        ])
        .args(["--no-dedupe", "--target", &target, "--format", "{p}|{l}"])
        .current_dir(root)
        .output()
        .context("cargo tree")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let lock = std::fs::read_to_string(root.join("Cargo.lock"))?;
    let mut found = parse_tree(&String::from_utf8_lossy(&output.stdout), &checksums(&lock));
    found.sort();
    found.dedup();
    ensure!(!found.is_empty(), "cargo tree names no crate of {package}");
    Ok(found)
}

/// Reads lines such as `tokio v1.54.0|MIT` and `flutecast-contract v0.1.0 (/a/folder)|Apache-2.0`.
fn parse_tree(text: &str, checksums: &BTreeMap<(String, String), String>) -> Vec<Component> {
    let component = |line: &str| {
        let (package, licence) = line.split_once('|')?;
        let mut words = package.split_whitespace();
        let (name, version) = (words.next()?.to_owned(), words.next()?.trim_start_matches('v').to_owned());
        Some(Component {
            purl: format!("pkg:cargo/{name}@{version}"),
            sha256: checksums.get(&(name.clone(), version.clone())).cloned(),
            // An older way to write a choice.
            licence: Some(licence.trim().replace('/', " OR ")).filter(|licence| !licence.is_empty()),
            name,
            version,
        })
    };
    text.lines().filter_map(component).collect()
}

/// The digests in a `Cargo.lock`, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            package
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "))
                .map(|text| text.trim_matches('"'))
        };
        if let (Some(name), Some(version), Some(sum)) = (field("name"), field("version"), field("checksum")) {
            found.insert((name.to_owned(), version.to_owned()), sum.to_owned());
        }
    }
    found
}

/// Debian's packages that `files` come from. Where there is no dpkg, nothing is known.
///
/// # Errors
/// When dpkg-query can't be run although it is there.
pub fn debian_packages_of(files: &[std::path::PathBuf]) -> anyhow::Result<Vec<Component>> {
    let mut found = Vec::new();
    for file in files {
        for name in owners(file)? {
            let output = Command::new("dpkg-query")
                .args(["--show", "--showformat", "${Package}|${Version}|${Architecture}", &name])
                .output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut fields = text.split('|').map(str::to_owned);
            if let (Some(name), Some(version), Some(arch)) = (fields.next(), fields.next(), fields.next()) {
                let purl = format!(
                    "pkg:deb/debian/{name}@{}?arch={arch}",
                    version.replace('+', "%2B").replace(':', "%3A")
                );
                found.push(Component { purl, name, version, licence: None, sha256: None });
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// The packages that own a file, under its name or, since /lib is a link to /usr/lib, under the other one.
fn owners(file: &Path) -> anyhow::Result<Vec<String>> {
    let path = file.display().to_string();
    let real = file.canonicalize().map_or_else(|_| path.clone(), |real| real.display().to_string());
    for path in [path, real.clone(), real.trim_start_matches("/usr").to_owned()] {
        let output = match Command::new("dpkg-query").args(["--search", &path]).env("LC_ALL", "C").output() {
            Ok(output) => output,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context("dpkg-query"),
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let names: Vec<_> = text
            .lines()
            .filter_map(|line| line.rsplit_once(": "))
            .flat_map(|(names, _)| names.split(", ").map(str::to_owned).collect::<Vec<_>>())
            .collect();
        if !names.is_empty() {
            return Ok(names);
        }
    }
    Ok(Vec::new())
}

/// The document for one program.
#[must_use]
pub fn spdx(name: &str, version: &str, created: &str, components: &[Component]) -> Value {
    let mut packages = vec![json!({
        "SPDXID": "SPDXRef-image",
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseDeclared": "Apache-2.0",
        "primaryPackagePurpose": "CONTAINER",
    })];
    let mut relationships = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image")];
    for (number, component) in components.iter().enumerate() {
        let id = format!("SPDXRef-{number}");
        let mut package = json!({
            "SPDXID": id,
            "name": component.name,
            "versionInfo": component.version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseDeclared": component.licence.as_deref().unwrap_or("NOASSERTION"),
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": component.purl,
            }],
        });
        if let Some(sha256) = &component.sha256 {
            package["checksums"] = json!([{"algorithm": "SHA256", "checksumValue": sha256}]);
        }
        packages.push(package);
        relationships.push(relation("SPDXRef-image", "CONTAINS", &id));
    }
    json!({
        "spdxVersion": "SPDX-2.3",
        "SPDXID": "SPDXRef-DOCUMENT",
        "dataLicense": "CC0-1.0",
        "name": format!("{name}-{version}"),
        "documentNamespace": format!("https://flutecast.io/sbom/{name}-{version}-{created}"),
        "creationInfo": {"created": created, "creators": ["Tool: flutecast-images"]},
        "packages": packages,
        "relationships": relationships,
    })
}

fn relation(from: &str, what: &str, to: &str) -> Value {
    json!({"spdxElementId": from, "relationshipType": what, "relatedSpdxElement": to})
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"00ff\"\n\n[[package]]\nname = \"b\"\nversion = \"2.0.0\"\n";

    #[test]
    fn crates_have_the_digests_of_the_lock_file() {
        let found =
            parse_tree("b v2.0.0 (/some/where)|Apache-2.0\na v1.0.0|MIT/Apache-2.0\n", &checksums(LOCK));
        assert_eq!(found[0].sha256, None);
        assert_eq!(
            (found[1].sha256.as_deref(), found[1].licence.as_deref()),
            (Some("00ff"), Some("MIT OR Apache-2.0"))
        );
        assert_eq!(found[1].purl, "pkg:cargo/a@1.0.0");
    }

    #[test]
    fn what_is_linked_is_named_and_what_only_builds_is_not() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let found = crates_of(root, "flutecast-dataplane").unwrap();
        let has = |name: &str| found.iter().any(|component| component.name == name);
        assert!(has("warp") && has("flutecast-contract") && has("async-nats"));
        // A macro, a compiler of C, a crate of the operator's, a crate of tests.
        for absent in ["serde_derive", "cc", "flutecast-crds", "proptest"] {
            assert!(!has(absent), "{absent} isn't part of the program");
        }
        for component in &found {
            let ours = component.name.starts_with("flutecast-");
            assert_eq!(
                component.sha256.is_none(),
                ours,
                "all but our own crates have a digest: {component:?}"
            );
        }
    }
}
