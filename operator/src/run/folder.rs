//! The operator on a folder of manifests.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use flutecast_process::log::LogFormat;
use flutecast_process::tasks::Tasks;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::metrics::OperatorMetrics;
use super::{Nats, Streams};
use crate::backend::folder::mapping::{MappingError, MappingFolder};
use crate::backend::folder::status::{Format, Printer};
use crate::backend::folder::{self, FolderBackend};
use crate::config::Mode;
use crate::controller::Controller;
use crate::controller::apply::directory::DirectoryPublisher;
use crate::controller::inbox::Inbox;
use crate::enrollment::{self, ServerContext};
use crate::jetstream::reconciler::REMOVAL_GRACE;
use crate::last_messages::{JudgementLog, MessageJudge};

pub(super) struct FolderOperator {
    pub(super) manifests: PathBuf,
    pub(super) mapping: MappingFolder,
    pub(super) log_format: LogFormat,
}

/// Opens the folder of the mapping, if the operator is to work on one.
pub(super) fn open(mode: &Mode) -> Result<Option<MappingFolder>, MappingError> {
    match mode {
        Mode::Folder { mapping_out, .. } => MappingFolder::open(mapping_out).map(Some),
        Mode::Kubernetes { .. } => Ok(None),
    }
}

impl FolderOperator {
    pub(super) fn start(
        self,
        streams: Streams,
        nats: Nats,
        metrics: &OperatorMetrics,
        tasks: &mut Tasks,
        cancel: &CancellationToken,
    ) {
        let printer = Printer::new(match self.log_format {
            LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
        });
        let (directory_sender, directory) = watch::channel(None);
        // No Devices are created in a folder.
        let (_, forbidden) = watch::channel(BTreeSet::new());
        let looks = streams.look_task(&nats, REMOVAL_GRACE, mpsc::channel(1).1, metrics);
        tasks.spawn_until(
            "last messages",
            cancel,
            looks.run(Arc::new(MessageJudge::new(JudgementLog::default()))),
        );
        let context = ServerContext {
            client: nats.enrollment,
            directory,
            forbidden,
            creator: None,
            metrics: metrics.enrollment.clone(),
        };
        tasks.watch("enrollment", enrollment::spawn(context, cancel.clone()));
        let Streams { wanted, report, channels } = streams;
        let (changes, watch) = folder::watch::watch(&self.manifests);
        tasks.spawn_until("folder watch", cancel, watch);
        let backend = FolderBackend::new(self.manifests, self.mapping, printer, metrics.controller.clone());
        let directory = DirectoryPublisher::new(directory_sender);
        let controller = Controller::new(backend, wanted, channels, directory, metrics.controller.clone());
        let inbox = Inbox { changes, report, leading: None };
        tasks.watch("controller", controller.spawn(inbox, cancel.clone()));
    }
}
