//! The folder, addresses and names of a cluster.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use flutecast_testkit::tools_folder;

/// The environment variable that chooses another [`Slot`] than 0.
pub const SLOT_VARIABLE: &str = "FLUTECAST_CLUSTER_SLOT";
/// The cluster's network is `10.<FIRST_NETWORK + slot>.0.0/16`, which others rarely use and which is none of
/// Kubernetes' usual ranges.
const FIRST_NETWORK: u8 = 180;
/// Maximum length of the folder's path: a Unix socket's path has at most 107 bytes (`sun_path` in unix(7)),
/// and the longest below the folder is containerd's.
const LONGEST_FOLDER: usize = 80;

/// The number of a cluster on this machine. Most people need only one; several slots let people work side by
/// side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u8);

impl Slot {
    pub const COUNT: u8 = 16;

    /// Returns the slot with this number.
    ///
    /// # Errors
    /// If it is 16 or more.
    pub fn new(number: u8) -> anyhow::Result<Self> {
        ensure!(number < Self::COUNT, "{SLOT_VARIABLE} must be 0 to {}, not {number}", Self::COUNT - 1);
        Ok(Self(number))
    }

    /// Returns the slot of `FLUTECAST_CLUSTER_SLOT`; 0 if it is not set.
    ///
    /// # Errors
    /// If it isn't a number from 0 to 15.
    pub fn from_environment() -> anyhow::Result<Self> {
        match std::env::var(SLOT_VARIABLE).ok().filter(|text| !text.is_empty()) {
            None => Ok(Self(0)),
            Some(text) => Self::new(text.parse().with_context(|| format!("{SLOT_VARIABLE}={text}"))?),
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The names and addresses of a cluster, which all follow from its slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterDir {
    slot: Slot,
    folder: PathBuf,
}

impl ClusterDir {
    /// Returns the cluster of a slot, with its folder beside the built tools.
    ///
    /// # Errors
    /// If there is no cache folder, or its path is too long for sockets.
    pub fn of(slot: Slot) -> anyhow::Result<Self> {
        let tools = tools_folder()?;
        let folder = tools.with_file_name("clusters").join(slot.to_string());
        let length = folder.as_os_str().len();
        ensure!(
            length <= LONGEST_FOLDER,
            "{} is too long for sockets below it ({length} bytes, at most {LONGEST_FOLDER}): set \
             XDG_CACHE_HOME to a shorter one",
            folder.display()
        );
        Ok(Self { slot, folder })
    }

    /// Returns the clusters of all other slots.
    pub(super) fn others(&self) -> impl Iterator<Item = Self> {
        let all = (0..Slot::COUNT).map(Slot).filter(|slot| *slot != self.slot);
        all.map(|slot| Self { slot, folder: self.folder.with_file_name(slot.to_string()) })
    }

    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Returns the folder with all files of the cluster.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns a path below the folder.
    #[must_use]
    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.join(below)
    }

    /// Returns a path below the folder as text, for flags and configuration files. [`super::preflight`]
    /// refuses folders that aren't UTF-8.
    #[must_use]
    pub fn text(&self, below: &str) -> String {
        self.path(below).display().to_string()
    }

    /// Returns the path of the administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig.yaml")
    }

    #[must_use]
    pub fn supervisor_socket(&self) -> PathBuf {
        self.path("supervisor.sock")
    }

    #[must_use]
    pub fn containerd_socket(&self) -> PathBuf {
        self.path("containerd.sock")
    }

    /// Returns the node's name in the cluster, which is also its hostname.
    #[must_use]
    pub fn node_name(&self) -> String {
        format!("flutecast-{}", self.slot)
    }

    /// Returns the name of the host's end of the link to the node. Linux limits it to 15 bytes.
    #[must_use]
    pub fn host_link(&self) -> String {
        format!("flutecast{}", self.slot)
    }

    /// Returns the name of the cgroup of all pods.
    #[must_use]
    pub fn cgroup(&self) -> String {
        format!("flutecast-cluster-{}", self.slot)
    }

    fn address(&self, third: u8, fourth: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, FIRST_NETWORK + self.slot.0, third, fourth)
    }

    /// Returns the network with all addresses of the cluster.
    #[must_use]
    pub fn network(&self) -> String {
        format!("{}/16", self.address(0, 0))
    }

    /// Returns the host's address in the cluster's network.
    #[must_use]
    pub fn host_address(&self) -> Ipv4Addr {
        self.address(0, 1)
    }

    #[must_use]
    pub fn node_address(&self) -> Ipv4Addr {
        self.address(0, 2)
    }

    /// Returns the network of Services.
    #[must_use]
    pub fn services(&self) -> String {
        format!("{}/20", self.address(64, 0))
    }

    /// Returns the address of the Service `kubernetes`, which is always the first of the range.
    #[must_use]
    pub fn api_service(&self) -> Ipv4Addr {
        self.address(64, 1)
    }

    /// Returns the address of the DNS Service.
    #[must_use]
    pub fn dns_service(&self) -> Ipv4Addr {
        self.address(64, 10)
    }

    /// Returns the network of pods.
    #[must_use]
    pub fn pods(&self) -> String {
        format!("{}/20", self.address(128, 0))
    }

    #[must_use]
    pub fn api_url(&self) -> String {
        format!("https://{}:6443", self.node_address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_share_nothing() {
        let [first, last] =
            [0, Slot::COUNT - 1].map(|number| ClusterDir::of(Slot::new(number).unwrap()).unwrap());
        assert_ne!(first.folder(), last.folder());
        assert_ne!(first.network(), last.network());
        assert_ne!(first.host_link(), last.host_link());
        assert!(last.host_link().len() <= 15, "{}", last.host_link());
        assert_ne!(first.cgroup(), last.cgroup());
        assert!(Slot::new(Slot::COUNT).is_err());
    }

    #[test]
    fn the_ranges_are_inside_the_network() {
        let dir = ClusterDir::of(Slot::new(3).unwrap()).unwrap();
        for range in [dir.services(), dir.pods(), dir.api_url().replace("https://", "")] {
            assert!(range.starts_with("10.183."), "{range}");
        }
    }
}
