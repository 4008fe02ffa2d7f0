use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use serde_json::Value;

use super::{Image, Layer, NONROOT, WrittenArchive, digest};

/// Returns the entries of a tar by path: mode, user, time and content.
fn entries(bytes: &[u8]) -> BTreeMap<String, (u32, u64, u64, Vec<u8>)> {
    let mut archive = tar::Archive::new(bytes);
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let (path, header) = (entry.path().unwrap().display().to_string(), entry.header().clone());
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let facts = (header.mode().unwrap(), header.uid().unwrap(), header.mtime().unwrap(), content);
        assert!(found.insert(path.clone(), facts).is_none(), "{path} twice");
    }
    found
}

fn image(layer: Layer) -> Image {
    Image {
        name: "flutecast.io/thing:1".to_owned(),
        layers: vec![layer],
        entrypoint: vec!["/thing".to_owned()],
        user: format!("{NONROOT}:{NONROOT}"),
        env: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
        ports: vec![8080],
        labels: BTreeMap::from([("org.opencontainers.image.title".to_owned(), "thing".to_owned())]),
        created: 1_000_000_000,
    }
}

fn written(layer: Layer, folder: &Path, name: &str) -> (WrittenArchive, Vec<u8>) {
    let file = folder.join(name);
    let written = image(layer).write(&file).unwrap();
    (written, std::fs::read(file).unwrap())
}

#[test]
fn the_same_content_is_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let mut one = Layer::default();
    one.file("/thing", 0o755, "program").file("/etc/a/b", 0o644, "text").folder("/tmp", 0o1777);
    let mut other = Layer::default();
    other.folder("/tmp", 0o1777).file("/etc/a/b", 0o644, "text").file("/thing", 0o755, "program");
    let (first, second) =
        (written(one, folder.path(), "a.tar"), written(other.clone(), folder.path(), "b.tar"));
    assert_eq!(first, second);
    other.file("/etc/a/b", 0o600, "text");
    let third = written(other, folder.path(), "c.tar");
    assert_ne!(third.0.manifest, first.0.manifest, "the mode is part of the digest");
}

#[test]
fn the_archive_is_an_oci_layout_and_a_docker_archive() {
    let folder = tempfile::tempdir().unwrap();
    let mut layer = Layer::default();
    layer.file("/thing", 0o755, "program").file("/etc/a/b", 0o644, "text").folder("/tmp", 0o1777);
    let (written, bytes) = written(layer, folder.path(), "a.tar");
    let files = entries(&bytes);
    let json = |path: &str| -> Value { serde_json::from_slice(&files[path].3).unwrap() };
    let blob = |digest: &Value| {
        let path = format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"));
        let content = &files[&path].3;
        assert_eq!(super::digest(content), digest.as_str().unwrap());
        content.clone()
    };
    assert_eq!(json("oci-layout")["imageLayoutVersion"], "1.0.0");
    let entry = &json("index.json")["manifests"][0];
    assert_eq!(entry["annotations"]["io.containerd.image.name"], "flutecast.io/thing:1");
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "1");
    assert_eq!(entry["digest"], written.manifest.as_str());
    let manifest: Value = serde_json::from_slice(&blob(&entry["digest"])).unwrap();
    assert_eq!(manifest["config"]["digest"], written.config.as_str());
    let config: Value = serde_json::from_slice(&blob(&manifest["config"]["digest"])).unwrap();
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["config"]["Entrypoint"][0], "/thing");
    assert_eq!(config["config"]["Env"][0], "A=b");
    assert_eq!(config["created"], "2001-09-09T01:46:40Z");
    assert!(config["config"]["ExposedPorts"]["8080/tcp"].is_object());
    let packed = blob(&manifest["layers"][0]["digest"]);
    let mut plain = Vec::new();
    GzDecoder::new(packed.as_slice()).read_to_end(&mut plain).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][0], digest(&plain).as_str());
    let inside = entries(&plain);
    assert_eq!(inside.keys().collect::<Vec<_>>(), ["etc/", "etc/a/", "etc/a/b", "thing", "tmp/"]);
    assert_eq!(inside["thing"], (0o755, 0, 0, b"program".to_vec()));
    assert_eq!(inside["tmp/"].0, 0o1777);
    // Engines without support for OCI layouts read this file.
    let docker = &json("manifest.json")[0];
    assert_eq!(docker["RepoTags"][0], "flutecast.io/thing:1");
    assert_eq!(docker["Layers"][0], format!("blobs/{}", super::digest(&packed).replace(':', "/")));
    assert!(files.contains_key(docker["Config"].as_str().unwrap()));
}

#[test]
fn a_name_without_a_tag_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["thing", "registry.example:5000/thing"] {
        let image = Image { name: name.to_owned(), ..image(Layer::default()) };
        let error = image.write(&folder.path().join("a.tar")).unwrap_err().to_string();
        assert!(error.contains("has no tag"), "{error}");
    }
}

/// The image holds a program and its libraries, but no shell.
#[test]
fn a_program_brings_its_libraries() {
    let own = std::env::current_exe().unwrap();
    let image = Image::of_program("flutecast.io/own:1", &own).unwrap();
    let base = image.layers[0].pack().unwrap();
    let mut plain = Vec::new();
    GzDecoder::new(base.bytes.as_slice()).read_to_end(&mut plain).unwrap();
    let names: Vec<_> = entries(&plain).into_keys().collect();
    for part in ["libc.so.6", "ld-linux", "etc/passwd", "etc/nsswitch.conf", "tmp/"] {
        assert!(names.iter().any(|name| name.contains(part)), "{part} in {names:?}");
    }
    assert!(!names.iter().any(|name| name.starts_with("bin/") || name.ends_with("/sh")), "{names:?}");
}
