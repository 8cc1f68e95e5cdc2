//! Batch tasks: what is done to which devices, how far that is, and which run of a node does it. A run claims a task, says
//! which targets it begins before it does anything to them, and what became of them afterwards; the epoch of its claim
//! fences it. Absent here: what a task does to a device, and the JSON in its document.

mod apply;
mod change;
mod image;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use fulmar_platform::registry::ObjectId;
use rpds::{RedBlackTreeMapSync, VectorSync};

pub use change::{Answer, Change, Event, Notice, Outcome, Refusal};
pub use image::{Filed, FiledTask};

use crate::key::{Generation, LogTime, NodeId};

/// Tasks that are kept. At this bound, and those below, finished ones go, the oldest first.
pub const TASKS_MAX: usize = if cfg!(test) { 12 } else { 1_000 };

/// Tasks that are not finished; more are refused.
pub const OPEN_MAX: usize = if cfg!(test) { 6 } else { 64 };

/// Targets of one task.
pub const TARGETS_MAX: u32 = 30_000;

/// Targets of all tasks; each takes about 150 bytes beside its id.
pub const TARGETS_KEPT_MAX: u64 = if cfg!(test) { 40 } else { 1_000_000 };

/// Bytes of documents, ids of targets, outputs and errors of all tasks.
pub const BYTES_MAX: u64 = if cfg!(test) { 8_000 } else { 128 << 20 };

/// Bytes of a document.
pub const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a target's id.
pub const TARGET_BYTES_MAX: usize = 128;

/// Bytes of what a target's device has answered; what is longer is cut.
pub const OUTPUT_BYTES_MAX: usize = 1024;

/// Bytes of the text of a target's error; what is longer is cut.
pub const MESSAGE_BYTES_MAX: usize = 256;

/// Bytes of all outputs and texts of errors of one task; what comes later is left out, and the task says so.
pub const TEXT_BYTES_MAX: u64 = if cfg!(test) { 400 } else { 2 << 20 };

/// Times that a failed target is tried again by itself.
pub const RETRIES_MAX: u8 = 5;

/// How long the targets of a new task may take to come.
pub const INITIALIZING_S: u64 = 60;

/// How long devices may take to upgrade, from when the last of them was told.
pub const UPGRADE_S: u64 = 24 * 3600;

/// Overdue targets that one command ends.
const OVERDUE_STEP_MAX: usize = if cfg!(test) { 2 } else { 1_000 };

/// The code of a target that was begun by a run which was lost.
pub const LOST: &str = "FULMAR.000050";

/// The code of a device that has not said in time how its upgrade ended.
pub const OVERDUE: &str = "FULMAR.000051";

/// What is done to each target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    SoftwareUpgrade,
    FirmwareUpgrade,
    CreateDevices,
    UpdateDevices,
    DeleteDevices,
    FreezeDevices,
    UnfreezeDevices,
    CreateCommands,
    CreateMessages,
    UpdateDeviceShadows,
}

impl Kind {
    pub const ALL: [Kind; 10] = [
        Kind::SoftwareUpgrade,
        Kind::FirmwareUpgrade,
        Kind::CreateDevices,
        Kind::UpdateDevices,
        Kind::DeleteDevices,
        Kind::FreezeDevices,
        Kind::UnfreezeDevices,
        Kind::CreateCommands,
        Kind::CreateMessages,
        Kind::UpdateDeviceShadows,
    ];

    /// As the REST API names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::SoftwareUpgrade => "softwareUpgrade",
            Kind::FirmwareUpgrade => "firmwareUpgrade",
            Kind::CreateDevices => "createDevices",
            Kind::UpdateDevices => "updateDevices",
            Kind::DeleteDevices => "deleteDevices",
            Kind::FreezeDevices => "freezeDevices",
            Kind::UnfreezeDevices => "unfreezeDevices",
            Kind::CreateCommands => "createCommands",
            Kind::CreateMessages => "createMessages",
            Kind::UpdateDeviceShadows => "updateDeviceShadows",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether the device itself says later how it ended.
    #[must_use]
    pub fn upgrades(self) -> bool {
        matches!(self, Kind::SoftwareUpgrade | Kind::FirmwareUpgrade)
    }

    /// Whether doing it twice to a device comes to the same as once, so that a target may be done again when the run that
    /// had begun it is lost. Commands and messages would reach the device twice, and of a device that is there nobody
    /// could say which of two creations has made it.
    #[must_use]
    pub fn repeatable(self) -> bool {
        matches!(
            self,
            Kind::UpdateDevices
                | Kind::DeleteDevices
                | Kind::FreezeDevices
                | Kind::UnfreezeDevices
                | Kind::UpdateDeviceShadows
        )
    }
}

/// Of a task. The spelling of the one that waits is the vendor's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Its targets are still coming.
    Initializing,
    /// For its time.
    Waitting,
    Processing,
    Success,
    PartialSuccess,
    Fail,
    /// What has begun is still seen through.
    Stopping,
    Stopped,
}

impl Status {
    pub const ALL: [Status; 8] = [
        Status::Initializing,
        Status::Waitting,
        Status::Processing,
        Status::Success,
        Status::PartialSuccess,
        Status::Fail,
        Status::Stopping,
        Status::Stopped,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Initializing => "Initializing",
            Status::Waitting => "Waitting",
            Status::Processing => "Processing",
            Status::Success => "Success",
            Status::PartialSuccess => "PartialSuccess",
            Status::Fail => "Fail",
            Status::Stopping => "Stopping",
            Status::Stopped => "Stopped",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Whether a run of a node is to work on it.
    #[must_use]
    pub fn runs(self) -> bool {
        matches!(self, Status::Processing | Status::Stopping)
    }

    /// Whether something is still to happen by itself.
    #[must_use]
    pub fn open(self) -> bool {
        self.runs() || matches!(self, Status::Initializing | Status::Waitting)
    }
}

/// How far a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    Waitting,
    Processing,
    Success,
    Fail,
    FailWaitRetry,
    Stopped,
}

impl Stage {
    pub const ALL: [Stage; 6] =
        [Stage::Waitting, Stage::Processing, Stage::Success, Stage::Fail, Stage::FailWaitRetry, Stage::Stopped];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Waitting => "Waitting",
            Stage::Processing => "Processing",
            Stage::Success => "Success",
            Stage::Fail => "Fail",
            Stage::FailWaitRetry => "FailWaitRetry",
            Stage::Stopped => "Stopped",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Stage> {
        Stage::ALL.into_iter().find(|stage| stage.as_str() == name)
    }
}

/// Why a target failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: Box<str>,
    pub message: Box<str>,
}

/// One target.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Of a device; of one that is to be created, its id or what the document makes an id of.
    pub id: Arc<str>,
    pub stage: Stage,
    /// How often it was begun since it was created, or retried by hand. Above 0 while it waits: the run that had begun it
    /// was lost.
    pub tries: u8,
    /// When a failed one is tried again.
    pub next_try: LogTime,
    /// What the device has answered; empty: nothing.
    pub output: Box<str>,
    pub failure: Option<Arc<Failure>>,
}

impl Target {
    fn new(id: &str) -> Target {
        Target {
            id: id.into(),
            stage: Stage::Waitting,
            tries: 0,
            next_try: LogTime::default(),
            output: "".into(),
            failure: None,
        }
    }

    /// Bytes of its output and error.
    fn text_bytes(&self) -> u64 {
        (self.output.len() + self.failure.as_ref().map_or(0, |failure| failure.message.len())) as u64
    }
}

/// How many targets are how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    pub waitting: u32,
    pub processing: u32,
    pub success: u32,
    pub fail: u32,
    pub fail_wait_retry: u32,
    pub stopped: u32,
}

impl Progress {
    fn of(&mut self, stage: Stage) -> &mut u32 {
        match stage {
            Stage::Waitting => &mut self.waitting,
            Stage::Processing => &mut self.processing,
            Stage::Success => &mut self.success,
            Stage::Fail => &mut self.fail,
            Stage::FailWaitRetry => &mut self.fail_wait_retry,
            Stage::Stopped => &mut self.stopped,
        }
    }
}

/// When targets are done, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Not before; `None`: at once.
    pub schedule_at: Option<LogTime>,
    /// At most [`RETRIES_MAX`].
    pub retry_count: u8,
    pub retry_interval_s: u32,
}

/// What is fixed once a task is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    pub name: Box<str>,
    pub kind: Kind,
    pub app_id: Box<str>,
    /// JSON; empty: none.
    pub document: Bytes,
    /// JSON of what the targets were found by; empty: they were named.
    pub filter: Box<str>,
    /// Of an upgrade: the version that is to come.
    pub version: Box<str>,
    pub policy: Policy,
    /// Targets, once all have come.
    pub total: u32,
}

/// A task. A clone is O(1).
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    pub id: ObjectId,
    pub head: Arc<Head>,
    pub created: LogTime,
    pub status: Status,
    /// Of the last claim.
    pub epoch: u64,
    /// Who has claimed it; nobody once it is finished.
    pub owner: Option<(NodeId, Generation)>,
    /// When targets were last begun.
    pub begun: LogTime,
    /// Outputs or texts of errors were left out.
    pub cropped: bool,
    pub targets: VectorSync<Target>,
    /// Derived.
    progress: Progress,
    text_bytes: u64,
}

impl Task {
    fn new(id: ObjectId, head: Arc<Head>, created: LogTime) -> Task {
        Task {
            id,
            head,
            created,
            status: Status::Initializing,
            epoch: 0,
            owner: None,
            begun: LogTime::default(),
            cropped: false,
            targets: VectorSync::new_sync(),
            progress: Progress::default(),
            text_bytes: 0,
        }
    }

    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// A few words on its status.
    #[must_use]
    pub fn description(&self) -> String {
        let Progress { success, .. } = self.progress;
        let mut text = match self.status {
            Status::Initializing => "its targets are being taken in".to_owned(),
            Status::Waitting => "waits for its time".to_owned(),
            Status::Processing => "is being carried out".to_owned(),
            Status::Stopping => "what has begun is still seen through".to_owned(),
            _ => format!("{success} of {} succeeded", self.head.total),
        };
        if self.cropped {
            text.push_str("; there was no room for all outputs");
        }
        text
    }

    fn complete(&self) -> bool {
        let Progress { waitting, processing, fail_wait_retry, .. } = self.progress;
        waitting == 0 && processing == 0 && fail_wait_retry == 0
    }

    /// When something must happen to it without anybody asking.
    fn due(&self) -> Option<LogTime> {
        match self.status {
            Status::Initializing => Some(self.created.plus_s(INITIALIZING_S)),
            Status::Waitting => self.head.policy.schedule_at,
            Status::Processing if self.head.kind.upgrades() && self.progress.processing > 0 => {
                Some(self.begun.plus_s(UPGRADE_S))
            }
            _ => None,
        }
    }

    /// Bytes of its document and of the ids of its targets, as if all had come.
    fn fixed_bytes(&self) -> u64 {
        head_bytes(&self.head)
    }
}

/// Ids of targets count as if they were as long as they may be: so what comes later has its place.
fn head_bytes(head: &Head) -> u64 {
    (head.document.len() + head.filter.len()) as u64 + u64::from(head.total) * TARGET_BYTES_MAX as u64
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tasks {
    /// The last number that an id was made of.
    last: u64,
    /// Finished tasks that went to make room, since the cluster began.
    evicted: u64,
    tasks: RedBlackTreeMapSync<ObjectId, Task>,

    // Derived.
    /// Those that are not finished.
    open: RedBlackTreeMapSync<ObjectId, ()>,
    due: RedBlackTreeMapSync<(LogTime, ObjectId), ()>,
    /// Devices that are to tell how their upgrade goes: device, task, and its number among the targets.
    upgrades: RedBlackTreeMapSync<(Arc<str>, ObjectId), u32>,
    targets_kept: u64,
    bytes: u64,
}

impl Tasks {
    #[must_use]
    pub fn get(&self, id: ObjectId) -> Option<&Task> {
        self.tasks.get(&id)
    }

    /// All tasks, newest first.
    pub fn all(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values().rev()
    }

    /// Those that are not finished, oldest first.
    pub fn open(&self) -> impl Iterator<Item = &Task> {
        self.open.keys().filter_map(|id| self.tasks.get(id))
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.tasks.size()
    }

    #[must_use]
    pub fn targets_kept(&self) -> u64 {
        self.targets_kept
    }

    /// Bytes of documents, ids, outputs and errors, as they are counted against [`BYTES_MAX`].
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Whether any device is to tell how its upgrade goes.
    #[must_use]
    pub fn upgrading(&self) -> bool {
        !self.upgrades.is_empty()
    }

    /// Upgrades that a device is to tell of: the task, and the device's number among its targets.
    pub fn upgrades_of(&self, device: &str) -> impl Iterator<Item = (&Task, u32)> {
        let device: Arc<str> = device.into();
        let range = (device.clone(), ObjectId::default())..=(device, ObjectId([0xff; 12]));
        let found: Vec<_> = self.upgrades.range(range).map(|((_, id), number)| (*id, *number)).collect();
        found.into_iter().filter_map(|(id, number)| Some((self.tasks.get(&id)?, number)))
    }

    #[must_use]
    pub(super) fn due(&self, now: LogTime, most: usize) -> Vec<Change> {
        let due = self.due.keys().take_while(|(at, _)| *at <= now).take(most);
        due.map(|(_, id)| Change::Due { id: *id }).collect()
    }

    #[must_use]
    pub(super) fn next_due(&self) -> Option<LogTime> {
        self.due.first().map(|((at, _), ())| *at)
    }
}
