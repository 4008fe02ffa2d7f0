//! Writes the bill of materials of an image in SPDX 2.3. It lists exactly the crates that are linked into the
//! program and the packages of the other files in the image.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

/// A component of an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Component {
    /// The name at the component's origin.
    pub name: String,
    /// The version at the component's origin.
    pub version: String,
    /// The licence as an SPDX expression; `None` if unknown.
    pub licence: Option<String>,
    /// The SHA-256 digest of the source archive in hexadecimal; `None` if there is no such archive.
    pub sha256: Option<String>,
    /// The package URL, such as `pkg:cargo/tokio@1.54.0`.
    pub purl: String,
}

/// Returns the crates that are linked into `package`, with the digests from `Cargo.lock`. Build scripts and
/// procedural macros are not included.
///
/// # Errors
/// Returns an error if cargo fails or `Cargo.lock` can't be read.
pub(super) fn crates_of(root: &Path, package: &str) -> anyhow::Result<Vec<Component>> {
    let metadata = metadata(root)?;
    let lock: Lock = toml::from_str(&std::fs::read_to_string(root.join("Cargo.lock"))?)?;
    let linked = metadata.linked_into(package).with_context(|| format!("{package} is no crate here"))?;
    let mut found: Vec<_> = linked.into_iter().map(|package| component(package, &lock)).collect();
    found.sort();
    Ok(found)
}

fn metadata(root: &Path) -> anyhow::Result<Metadata> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--locked", "--format-version", "1", "--filter-platform", &target])
        .current_dir(root)
        .output()
        .context("cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("cargo metadata")
}

fn component(package: &Package, lock: &Lock) -> Component {
    let Package { name, version, license, .. } = package;
    let locked = lock.package.iter().find(|locked| locked.name == *name && locked.version == *version);
    Component {
        purl: format!("pkg:cargo/{name}@{version}"),
        sha256: locked.and_then(|locked| locked.checksum.clone()),
        // The slash is the older notation for a choice.
        licence: license.as_ref().map(|license| license.replace('/', " OR ")),
        name: name.clone(),
        version: version.clone(),
    }
}

/// The relevant fields of the output of `cargo metadata`.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    targets: Vec<Target>,
    dependencies: Vec<Dependency>,
    features: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    rename: Option<String>,
    kind: Option<String>,
    optional: bool,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
    features: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<EdgeKind>,
}

/// The kind of a dependency; `None` for a normal one.
#[derive(Debug, Deserialize)]
struct EdgeKind {
    kind: Option<String>,
}

/// The relevant fields of `Cargo.lock`.
#[derive(Debug, Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Debug, Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

impl Metadata {
    /// Returns the package with this name and all packages that are linked into it, or `None` if there is no
    /// such package.
    fn linked_into(&self, name: &str) -> Option<Vec<&Package>> {
        let packages: BTreeMap<_, _> = self.packages.iter().map(|package| (&package.id, package)).collect();
        let nodes: BTreeMap<_, _> = self.resolve.nodes.iter().map(|node| (&node.id, node)).collect();
        let mut found = BTreeMap::new();
        let mut waiting = vec![&self.packages.iter().find(|package| package.name == name)?.id];
        while let Some(id) = waiting.pop() {
            let (Some(package), Some(node)) = (packages.get(id), nodes.get(id)) else { continue };
            if package.is_macro() || found.insert(id, *package).is_some() {
                continue;
            }
            let normal =
                node.deps.iter().filter(|edge| edge.dep_kinds.iter().any(|kind| kind.kind.is_none()));
            let used = normal.filter(|edge| {
                packages.get(&edge.pkg).is_some_and(|other| package.uses(&other.name, &node.features))
            });
            waiting.extend(used.map(|edge| &edge.pkg));
        }
        Some(found.into_values().collect())
    }
}

impl Package {
    fn is_macro(&self) -> bool {
        self.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "proc-macro"))
    }

    /// Returns whether a normal dependency is enabled by these features. Cargo's graph also has edges to
    /// optional dependencies that only a weak feature (`name?/feature`) mentions.
    fn uses(&self, dependency: &str, features: &[String]) -> bool {
        let mut entries =
            self.dependencies.iter().filter(|entry| entry.name == dependency && entry.kind.is_none());
        entries.any(|entry| {
            let name = entry.rename.as_ref().unwrap_or(&entry.name);
            let (explicit, slash) = (format!("dep:{name}"), format!("{name}/"));
            let activates = |text: &String| *text == explicit || text.starts_with(&slash) || text == name;
            let enabled = features.iter().filter_map(|feature| self.features.get(feature)).flatten();
            !entry.optional || features.contains(name) || enabled.into_iter().any(activates)
        })
    }
}

/// Returns the Debian packages that `files` belong to. The list is empty if dpkg is not installed.
///
/// # Errors
/// Returns an error if dpkg-query is installed but can't be run.
pub(super) fn debian_packages_of(files: &[std::path::PathBuf]) -> anyhow::Result<Vec<Component>> {
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

/// Returns the packages that own a file. Since /lib links to /usr/lib, both paths are tried.
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

/// Returns the SPDX document for one program.
#[must_use]
pub(super) fn spdx(name: &str, version: &str, created: &str, components: &[Component]) -> Value {
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
    use super::super::image_build::{NEXT_VERSION, PROGRAMS};
    use super::*;

    /// Returns a package as in `cargo metadata`, with `license`, `kind` of its target and `dependencies`.
    fn package(
        name: &str,
        license: Option<&str>,
        kind: &str,
        dependencies: &[(&str, Option<&str>, bool)],
    ) -> Value {
        let dependencies: Vec<_> = dependencies
            .iter()
            .map(|(name, kind, optional)| {
                json!({"name": name, "rename": null, "kind": kind, "optional": optional})
            })
            .collect();
        json!({
            "id": name, "name": name, "version": "1.0.0", "license": license, "targets": [{"kind": [kind]}],
            "features": {"f": ["used/x", "weak?/x"]}, "dependencies": dependencies,
        })
    }

    /// Returns a program `p` with dependencies of each kind.
    fn metadata_of_p() -> Metadata {
        let dependencies = [
            ("used", None, true),
            ("weak", None, true),
            ("built", Some("build"), false),
            ("macro", None, false),
        ];
        let others = [("used", "lib"), ("weak", "lib"), ("built", "lib"), ("macro", "proc-macro")];
        let mut packages = vec![package("p", Some("MIT/Apache-2.0"), "bin", &dependencies)];
        packages.extend(others.map(|(name, kind)| package(name, None, kind, &[])));
        let edge = |(name, kind, _)| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let mut nodes = vec![json!({"id": "p", "features": ["f"], "deps": dependencies.map(edge)})];
        nodes.extend(others.map(|(name, _)| json!({"id": name, "features": [], "deps": []})));
        serde_json::from_value(json!({"packages": packages, "resolve": {"nodes": nodes}})).unwrap()
    }

    #[test]
    fn crates_have_the_digests_of_the_lock_file() {
        let lock = "[[package]]\nname = \"p\"\nversion = \"1.0.0\"\n\
            [[package]]\nname = \"used\"\nversion = \"1.0.0\"\nchecksum = \"00ff\"\n";
        let lock: Lock = toml::from_str(lock).unwrap();
        let metadata = metadata_of_p();
        let found: Vec<_> =
            metadata.linked_into("p").unwrap().into_iter().map(|package| component(package, &lock)).collect();
        // Macros, build dependencies and dependencies that only a weak feature mentions are absent.
        assert_eq!(found.iter().map(|component| component.name.as_str()).collect::<Vec<_>>(), ["p", "used"]);
        assert_eq!(
            (found[0].sha256.as_deref(), found[0].licence.as_deref()),
            (None, Some("MIT OR Apache-2.0"))
        );
        assert_eq!(found[1].sha256.as_deref(), Some("00ff"));
        assert_eq!(found[1].purl, "pkg:cargo/used@1.0.0");
        assert!(metadata.linked_into("other").is_none());
    }

    #[test]
    fn what_is_linked_is_named_and_what_only_builds_is_not() {
        let root = &flutecast_testkit::in_repository("");
        let found = crates_of(root, "flutecast-dataplane").unwrap();
        let has = |name: &str| found.iter().any(|component| component.name == name);
        assert!(has("warp") && has("flutecast-contract") && has("async-nats"));
        // A macro, a build dependency, a crate of the operator, and a crate for tests.
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

    #[test]
    fn the_next_version_is_a_feature_that_nothing_turns_on() {
        let metadata = metadata(&flutecast_testkit::in_repository("")).unwrap();
        let package = |name: &str| metadata.packages.iter().find(|package| package.name == name).unwrap();
        for program in PROGRAMS {
            assert!(package(program.name).features.contains_key(NEXT_VERSION), "{}", program.name);
        }
        for node in &metadata.resolve.nodes {
            assert!(!node.features.iter().any(|feature| feature == NEXT_VERSION), "{}", node.id);
        }
    }
}
