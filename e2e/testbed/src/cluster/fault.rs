//! Faults that a test causes. They are repaired at the end of the test, also if it panics.

use super::{Node, Request};

/// A fault that lasts until it is mended or dropped.
#[derive(Debug)]
#[must_use = "dropping it mends the fault at once"]
pub struct Fault {
    node: Node,
    /// The request that ends it; `None` after it was sent.
    cure: Option<Request>,
}

impl Fault {
    pub(super) async fn cause(node: &Node, request: Request, cure: Request) -> anyhow::Result<Self> {
        // Created before the request, so that a fault that is caused only halfway is mended too.
        let this = Self { node: node.clone(), cure: Some(cure) };
        node.request(request).await?;
        Ok(this)
    }

    /// Ends the fault. The cluster may need some time to recover: see [`super::Cluster::wait_until_whole`].
    ///
    /// # Errors
    /// If the component can't be started.
    pub async fn mend(mut self) -> anyhow::Result<()> {
        match self.cure.take() {
            Some(cure) => self.node.request(cure).await.map(drop),
            None => Ok(()),
        }
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        if let Some(cure) = self.cure.take() {
            // A short request to a local socket. If it fails, [`super::Cluster::shared`] mends the cluster
            // for the next test.
            let _ = self.node.ask(cure);
        }
    }
}
