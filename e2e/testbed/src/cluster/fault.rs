//! A fault that ends: what a test breaks is whole again when it is done, however it ends.

use super::{Node, Request};

/// Something is broken until this is mended or dropped.
#[derive(Debug)]
#[must_use = "dropping it mends the fault at once"]
pub struct Fault {
    node: Node,
    /// The request that ends it; `None` if it has ended.
    cure: Option<Request>,
}

impl Fault {
    pub(super) async fn cause(node: &Node, request: Request, cure: Request) -> anyhow::Result<Self> {
        // BuiltImage before the deed: half a deed is mended too.
        let this = Self { node: node.clone(), cure: Some(cure) };
        node.request(request).await?;
        Ok(this)
    }

    /// Ends it. The cluster may need a while until it is whole: [`super::Cluster::wait_until_whole`].
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
            // A short question to a socket. When even that fails, the next test that asks for the cluster
            // mends it.
            let _ = self.node.ask(cure);
        }
    }
}
