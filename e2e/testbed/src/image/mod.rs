//! Container images without a container engine: reproducible archives that containerd, docker, podman and
//! kind can load.
//!
//! An archive is an OCI image layout that also has the `manifest.json` of `docker save`, for engines that
//! don't read the former.

mod base;

mod layer;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub use base::{base_layer, libraries_of};
pub use layer::Layer;

use layer::plain_header;

/// The user and group of programs in our images; no user of a usual machine.
pub const NONROOT: u32 = 65_532;

/// The content of an image.
#[derive(Debug, Clone)]
pub struct Image {
    /// Full name with a tag, such as `flutecast.io/flutecast-operator:0.1.0`.
    pub name: String,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// `<user>:<group>` as numbers, so that Kubernetes can verify that it isn't root.
    pub user: String,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// TCP ports on which the program listens; for information only.
    pub ports: Vec<u16>,
    /// Labels such as `org.opencontainers.image.*`.
    pub labels: BTreeMap<String, String>,
    /// Creation time in seconds since 1970: the time of the commit.
    pub created: i64,
}

/// Digests and size of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenArchive {
    /// The digest of the image's manifest, `sha256:…`, which follows `@` in an image reference.
    pub manifest: String,
    /// The digest of the configuration, which docker calls the image id.
    pub config: String,
    /// The size of the archive in bytes.
    pub bytes: u64,
}

impl Image {
    /// Returns an image of one program of this machine with its shared libraries, run as [`NONROOT`].
    ///
    /// # Errors
    /// If the program or a library can't be read.
    pub fn of_program(name: &str, program: &Path) -> anyhow::Result<Self> {
        let file = program.file_name().and_then(|name| name.to_str()).context("the program has no name")?;
        let path = format!("/{file}");
        let mut own = Layer::default();
        own.program(&path, program)?;
        Ok(Self {
            name: name.to_owned(),
            layers: vec![base_layer(&[program])?, own],
            entrypoint: vec![path],
            user: format!("{NONROOT}:{NONROOT}"),
            env: BTreeMap::new(),
            ports: Vec::new(),
            labels: BTreeMap::new(),
            created: 0,
        })
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// If the name has no tag, or the file can't be written.
    pub fn write(&self, file: &Path) -> anyhow::Result<WrittenArchive> {
        let (_, tag) = self.name.rsplit_once(':').with_context(|| format!("{} has no tag", self.name))?;
        ensure!(!tag.contains('/'), "{} has no tag", self.name);
        let mut blobs = Blobs::default();
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        for layer in &self.layers {
            let packed = layer.pack()?;
            diff_ids.push(packed.diff_id);
            layers.push(blobs.add("application/vnd.oci.image.layer.v1.tar+gzip", packed.bytes));
        }
        let config = blobs.add(
            "application/vnd.oci.image.config.v1+json",
            serde_json::to_vec(&self.configuration(&diff_ids)?)?,
        );
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
            "annotations": self.labels,
        });
        let mut entry =
            blobs.add("application/vnd.oci.image.manifest.v1+json", serde_json::to_vec(&manifest)?);
        let manifest = text_of(&entry, "digest");
        entry["platform"] = platform();
        // containerd, docker and podman read the name from the first annotation, tools that only follow the
        // specification from the second.
        entry["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": tag,
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        });
        let docker = json!([{
            "Config": blob_path(&text_of(&config, "digest")),
            "RepoTags": [self.name],
            "Layers": layers.iter().map(|layer| blob_path(&text_of(layer, "digest"))).collect::<Vec<_>>(),
        }]);
        blobs.files.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        blobs.files.insert("index.json".to_owned(), serde_json::to_vec(&index)?);
        blobs.files.insert("manifest.json".to_owned(), serde_json::to_vec(&docker)?);
        let bytes = blobs.write(file)?;
        Ok(WrittenArchive { manifest, config: text_of(&config, "digest"), bytes })
    }

    fn configuration(&self, diff_ids: &[String]) -> anyhow::Result<Value> {
        let created = jiff::Timestamp::from_second(self.created)?.to_string();
        let ports: BTreeMap<_, _> =
            self.ports.iter().map(|port| (format!("{port}/tcp"), json!({}))).collect();
        let env: Vec<_> = self.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut configuration = platform();
        configuration["created"] = json!(created);
        configuration["config"] = json!({
            "User": self.user,
            "Env": env,
            "Entrypoint": self.entrypoint,
            "ExposedPorts": ports,
            "WorkingDir": "/",
            "Labels": self.labels,
        });
        configuration["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        let history = diff_ids.iter().map(|_| json!({"created": created, "created_by": "flutecast-images"}));
        configuration["history"] = history.collect();
        Ok(configuration)
    }
}

/// The files of the archive.
#[derive(Debug, Default)]
struct Blobs {
    files: BTreeMap<String, Vec<u8>>,
}

impl Blobs {
    /// Adds a blob. Returns its descriptor.
    fn add(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = digest(&bytes);
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        self.files.insert(blob_path(&digest), bytes);
        descriptor
    }

    /// Writes the archive to a temporary file and renames it, so that no partial archive is ever visible.
    fn write(&self, file: &Path) -> anyhow::Result<u64> {
        let folder = file.parent().context("the archive's folder")?;
        std::fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
        let partial = file.with_extension("partial");
        let mut archive = tar::Builder::new(std::fs::File::create(&partial)?);
        for folder in ["blobs/", "blobs/sha256/"] {
            let mut header = plain_header();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            archive.append_data(&mut header, folder, std::io::empty())?;
        }
        for (path, content) in &self.files {
            let mut header = plain_header();
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, path, content.as_slice())?;
        }
        let written = archive.into_inner()?;
        written.sync_all()?;
        std::fs::rename(&partial, file).with_context(|| format!("{}", file.display()))?;
        Ok(file.metadata()?.len())
    }
}

/// Returns the digest of a blob in OCI's notation.
fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(bytes)))
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn text_of(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn platform() -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({"architecture": architecture, "os": "linux"})
}

#[cfg(test)]
mod tests;
