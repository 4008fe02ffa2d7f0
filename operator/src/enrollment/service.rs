//! Starts and ends the tenants' tasks as Tenants come and go.
//!
//! Only the operator that works has a roster, so only that one hears requests.

use std::collections::BTreeMap;

use flutecast_contract::name::TenantName;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::counter::{Shared, serve};

/// How many requests of one tenant may wait. What comes beyond that is dropped by the connection before it is
/// looked at.
pub const WAITING: usize = 256;

/// Starts the task. It ends when `cancel` is cancelled; whoever gets the handle watches it.
#[must_use = "a task that nobody watches fails unseen"]
pub fn spawn(shared: Shared, cancel: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(run(shared, cancel))
}

async fn run(mut shared: Shared, cancel: CancellationToken) {
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut served: BTreeMap<TenantName, CancellationToken> = BTreeMap::new();
    loop {
        let wanted: Vec<TenantName> =
            shared.roster.borrow_and_update().iter().flat_map(|roster| roster.keys().cloned()).collect();
        served.retain(|tenant, task| {
            let stays = wanted.contains(tenant);
            if !stays {
                task.cancel();
            }
            stays
        });
        for tenant in wanted {
            if served.contains_key(&tenant) {
                continue;
            }
            let task = cancel.child_token();
            served.insert(tenant.clone(), task.clone());
            tasks.spawn(serve(tenant, shared.clone(), task));
        }
        tokio::select! {
            () = cancel.cancelled() => break,
            changed = shared.roster.changed() => if changed.is_err() {
                break;
            },
            Some(ended) = tasks.join_next() => match ended {
                // It was told to end.
                Ok(()) => {}
                Err(error) => {
                    // Whoever watches this task ends the program: a panic is no state to go on from.
                    tracing::error!(%error, "a tenant's enrollment failed");
                    break;
                }
            },
        }
    }
    for task in served.values() {
        task.cancel();
    }
    while tasks.join_next().await.is_some() {}
}
