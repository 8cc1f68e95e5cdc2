//! Batch tasks.

use std::sync::Arc;

use bytes::Bytes;
use fulmar_broker::LogTime;
use fulmar_broker::plane::tasks::{
    Answer, Change, Failure, Filed, FiledTask, Head, Kind, Outcome, Policy, RETRIES_MAX, Refusal, Stage, Status, Target,
};
use fulmar_platform::registry::ObjectId;
use fulmar_proto::types::v1::snapshot_task::Piece as PieceMessage;
use fulmar_proto::types::v1::task_answer::Answer as AnswerMessage;
use fulmar_proto::types::v1::task_change::Change as ChangeMessage;
use fulmar_proto::types::v1::{self as proto, TaskKind, TaskRefusal, TaskStage, TaskStatus};

use super::super::{Error, Problem, Wire, each, field, optional, present, required};

const KINDS: [(Kind, TaskKind); 10] = [
    (Kind::SoftwareUpgrade, TaskKind::SoftwareUpgrade),
    (Kind::FirmwareUpgrade, TaskKind::FirmwareUpgrade),
    (Kind::CreateDevices, TaskKind::CreateDevices),
    (Kind::UpdateDevices, TaskKind::UpdateDevices),
    (Kind::DeleteDevices, TaskKind::DeleteDevices),
    (Kind::FreezeDevices, TaskKind::FreezeDevices),
    (Kind::UnfreezeDevices, TaskKind::UnfreezeDevices),
    (Kind::CreateCommands, TaskKind::CreateCommands),
    (Kind::CreateMessages, TaskKind::CreateMessages),
    (Kind::UpdateDeviceShadows, TaskKind::UpdateDeviceShadows),
];

const STATUSES: [(Status, TaskStatus); 8] = [
    (Status::Initializing, TaskStatus::Initializing),
    (Status::Waitting, TaskStatus::Waiting),
    (Status::Processing, TaskStatus::Processing),
    (Status::Success, TaskStatus::Success),
    (Status::PartialSuccess, TaskStatus::PartialSuccess),
    (Status::Fail, TaskStatus::Fail),
    (Status::Stopping, TaskStatus::Stopping),
    (Status::Stopped, TaskStatus::Stopped),
];

const STAGES: [(Stage, TaskStage); 6] = [
    (Stage::Waitting, TaskStage::Waiting),
    (Stage::Processing, TaskStage::Processing),
    (Stage::Success, TaskStage::Success),
    (Stage::Fail, TaskStage::Fail),
    (Stage::FailWaitRetry, TaskStage::FailWaitRetry),
    (Stage::Stopped, TaskStage::Stopped),
];

const REFUSALS: [(Refusal, TaskRefusal); 4] = [
    (Refusal::Missing, TaskRefusal::Missing),
    (Refusal::Stale, TaskRefusal::Stale),
    (Refusal::Full, TaskRefusal::Full),
    (Refusal::Status, TaskRefusal::Status),
];

/// The number of a value; every value is in its table.
fn number<T: PartialEq + Copy, M: Into<i32> + Copy>(table: &[(T, M)], value: T) -> i32 {
    table.iter().find(|(known, _)| *known == value).map_or(0, |(_, message)| (*message).into())
}

fn known<T: Copy, M: Into<i32> + Copy>(name: &str, table: &[(T, M)], value: i32) -> Result<T, Error> {
    let found = table.iter().find(|(_, message)| (*message).into() == value).map(|(known, _)| *known);
    found.ok_or_else(|| Error::new(name, Problem::Unknown(value)))
}

fn id_message(id: ObjectId) -> Bytes {
    Bytes::copy_from_slice(&id.0)
}

fn id(name: &str, bytes: &Bytes) -> Result<ObjectId, Error> {
    let whole = <[u8; 12]>::try_from(bytes.as_ref());
    whole.map(ObjectId).map_err(|_| Error::new(name, Problem::Range(bytes.len() as u64)))
}

fn tries(name: &str, value: u32) -> Result<u8, Error> {
    u8::try_from(value).map_err(|_| Error::new(name, Problem::Range(value.into())))
}

fn texts(ids: &[Box<str>]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

fn boxed(ids: Vec<String>) -> Vec<Box<str>> {
    ids.into_iter().map(Into::into).collect()
}

impl Wire for Head {
    type Message = proto::TaskHead;

    fn to_message(&self) -> proto::TaskHead {
        proto::TaskHead {
            name: self.name.to_string(),
            kind: number(&KINDS, self.kind),
            app_id: self.app_id.to_string(),
            document: self.document.clone(),
            filter: self.filter.to_string(),
            version: self.version.to_string(),
            schedule_at_ms: self.policy.schedule_at.map(|at| at.0),
            retry_count: self.policy.retry_count.into(),
            retry_interval_s: self.policy.retry_interval_s,
            total: self.total,
        }
    }

    fn from_message(message: proto::TaskHead) -> Result<Head, Error> {
        let retry_count = tries("retry_count", message.retry_count)?;
        if retry_count > RETRIES_MAX {
            return Err(Error::new("retry_count", Problem::Range(retry_count.into())));
        }
        Ok(Head {
            name: message.name.into(),
            kind: known("kind", &KINDS, message.kind)?,
            app_id: message.app_id.into(),
            // It outlives what it was read from.
            document: Bytes::copy_from_slice(&message.document),
            filter: message.filter.into(),
            version: message.version.into(),
            policy: Policy {
                schedule_at: message.schedule_at_ms.map(LogTime),
                retry_count,
                retry_interval_s: message.retry_interval_s,
            },
            total: message.total,
        })
    }
}

impl Wire for Failure {
    type Message = proto::TaskFailure;

    fn to_message(&self) -> proto::TaskFailure {
        proto::TaskFailure { code: self.code.to_string(), message: self.message.to_string() }
    }

    fn from_message(message: proto::TaskFailure) -> Result<Failure, Error> {
        Ok(Failure { code: message.code.into(), message: message.message.into() })
    }
}

impl Wire for Outcome {
    type Message = proto::TaskOutcome;

    fn to_message(&self) -> proto::TaskOutcome {
        match self {
            Outcome::Success { output } => {
                proto::TaskOutcome { output: output.to_string(), failure: None, again: false }
            }
            Outcome::Fail { failure, again } => {
                proto::TaskOutcome { output: String::new(), failure: Some(failure.to_message()), again: *again }
            }
        }
    }

    fn from_message(message: proto::TaskOutcome) -> Result<Outcome, Error> {
        match optional("failure", message.failure)? {
            Some(failure) if message.output.is_empty() => Ok(Outcome::Fail { failure, again: message.again }),
            Some(_) => Err(Error::new("output", Problem::Unwanted)),
            None if message.again => Err(Error::new("again", Problem::Unwanted)),
            None => Ok(Outcome::Success { output: message.output.into() }),
        }
    }
}

fn result_message((target, outcome): &(u32, Outcome)) -> proto::TaskResult {
    proto::TaskResult { target: *target, outcome: Some(outcome.to_message()) }
}

fn result(message: proto::TaskResult) -> Result<(u32, Outcome), Error> {
    Ok((message.target, required("outcome", message.outcome)?))
}

impl Wire for Change {
    type Message = proto::TaskChange;

    fn to_message(&self) -> proto::TaskChange {
        let named = |targets: &[u32]| proto::TaskTargets { targets: targets.to_vec() };
        let (id, change) = match self {
            Change::Create { head, targets } => {
                let create = proto::TaskCreate { head: Some(head.to_message()), targets: texts(targets) };
                return proto::TaskChange { id: Bytes::new(), change: Some(ChangeMessage::Create(create)) };
            }
            Change::Extend { id, from, targets } => {
                (id, ChangeMessage::Extend(proto::TaskExtend { from: *from, targets: texts(targets) }))
            }
            Change::Claim { id, node, generation } => {
                (id, ChangeMessage::Claim(proto::TaskClaim { by: Some((*node, *generation).to_message()) }))
            }
            Change::Begin { id, epoch, targets } => {
                (id, ChangeMessage::Begin(proto::TaskBegin { epoch: *epoch, targets: targets.clone() }))
            }
            Change::Finish { id, epoch, results } => {
                let results = results.iter().map(result_message).collect();
                (id, ChangeMessage::Finish(proto::TaskFinish { epoch: *epoch, results }))
            }
            Change::Told { id, target, outcome } => {
                let outcome = Some(outcome.to_message());
                (id, ChangeMessage::Told(proto::TaskResult { target: *target, outcome }))
            }
            Change::Stop { id, targets } => (id, ChangeMessage::Stop(named(targets))),
            Change::Retry { id, targets } => (id, ChangeMessage::Retry(named(targets))),
            Change::Delete { id } => (id, ChangeMessage::Delete(proto::TaskDelete {})),
            Change::Due { id } => (id, ChangeMessage::Due(proto::TaskDue {})),
        };
        proto::TaskChange { id: id_message(*id), change: Some(change) }
    }

    fn from_message(message: proto::TaskChange) -> Result<Change, Error> {
        let change = present("change", message.change)?;
        if let ChangeMessage::Create(create) = change {
            let head = required("head", create.head).map_err(|error| error.within("create"))?;
            return Ok(Change::Create { head: Box::new(head), targets: boxed(create.targets) });
        }
        let id = id("id", &message.id)?;
        Ok(match change {
            ChangeMessage::Create(_) => return Err(Error::new("create", Problem::Unwanted)),
            ChangeMessage::Extend(extend) => Change::Extend { id, from: extend.from, targets: boxed(extend.targets) },
            ChangeMessage::Claim(claim) => {
                let (node, generation) = required("by", claim.by).map_err(|error| error.within("claim"))?;
                Change::Claim { id, node, generation }
            }
            ChangeMessage::Begin(begin) => Change::Begin { id, epoch: begin.epoch, targets: begin.targets },
            ChangeMessage::Finish(finish) => {
                let results = each("results", finish.results, result).map_err(|error| error.within("finish"))?;
                Change::Finish { id, epoch: finish.epoch, results }
            }
            ChangeMessage::Told(told) => {
                let (target, outcome) = result(told).map_err(|error| error.within("told"))?;
                Change::Told { id, target, outcome }
            }
            ChangeMessage::Stop(stop) => Change::Stop { id, targets: stop.targets },
            ChangeMessage::Retry(retry) => Change::Retry { id, targets: retry.targets },
            ChangeMessage::Delete(proto::TaskDelete {}) => Change::Delete { id },
            ChangeMessage::Due(proto::TaskDue {}) => Change::Due { id },
        })
    }
}

impl Wire for Answer {
    type Message = proto::TaskAnswer;

    fn to_message(&self) -> proto::TaskAnswer {
        let answer = match self {
            Answer::Created(id) => AnswerMessage::Created(id_message(*id)),
            Answer::Claimed(epoch) => AnswerMessage::Claimed(*epoch),
            Answer::Begun(targets) => AnswerMessage::Begun(proto::TaskTargets { targets: targets.clone() }),
            Answer::Done => AnswerMessage::Done(proto::TaskDone {}),
            Answer::Refused(refusal) => AnswerMessage::Refused(number(&REFUSALS, *refusal)),
        };
        proto::TaskAnswer { answer: Some(answer) }
    }

    fn from_message(message: proto::TaskAnswer) -> Result<Answer, Error> {
        Ok(match present("answer", message.answer)? {
            AnswerMessage::Created(bytes) => Answer::Created(id("created", &bytes)?),
            AnswerMessage::Claimed(epoch) => Answer::Claimed(epoch),
            AnswerMessage::Begun(begun) => Answer::Begun(begun.targets),
            AnswerMessage::Done(proto::TaskDone {}) => Answer::Done,
            AnswerMessage::Refused(refusal) => Answer::Refused(known("refused", &REFUSALS, refusal)?),
        })
    }
}

impl Wire for Target {
    type Message = proto::SnapshotTarget;

    fn to_message(&self) -> proto::SnapshotTarget {
        proto::SnapshotTarget {
            id: self.id.to_string(),
            stage: number(&STAGES, self.stage),
            tries: self.tries.into(),
            next_try_ms: self.next_try.0,
            output: self.output.to_string(),
            failure: self.failure.as_deref().map(Wire::to_message),
        }
    }

    fn from_message(message: proto::SnapshotTarget) -> Result<Target, Error> {
        Ok(Target {
            id: message.id.into(),
            stage: known("stage", &STAGES, message.stage)?,
            tries: tries("tries", message.tries)?,
            next_try: LogTime(message.next_try_ms),
            output: message.output.into(),
            failure: optional("failure", message.failure)?.map(Arc::new),
        })
    }
}

impl Wire for FiledTask {
    type Message = proto::SnapshotTaskHead;

    fn to_message(&self) -> proto::SnapshotTaskHead {
        proto::SnapshotTaskHead {
            id: id_message(self.id),
            head: Some(self.head.to_message()),
            created_ms: self.created.0,
            status: number(&STATUSES, self.status),
            epoch: self.epoch,
            owner: self.owner.map(|owner| owner.to_message()),
            begun_ms: self.begun.0,
            cropped: self.cropped,
        }
    }

    fn from_message(message: proto::SnapshotTaskHead) -> Result<FiledTask, Error> {
        Ok(FiledTask {
            id: id("id", &message.id)?,
            head: Arc::new(required("head", message.head)?),
            created: LogTime(message.created_ms),
            status: known("status", &STATUSES, message.status)?,
            epoch: message.epoch,
            owner: optional("owner", message.owner)?,
            begun: LogTime(message.begun_ms),
            cropped: message.cropped,
        })
    }
}

impl Wire for Filed {
    type Message = proto::SnapshotTask;

    fn to_message(&self) -> proto::SnapshotTask {
        let piece = match self {
            Filed::Numbers { last, evicted } => {
                PieceMessage::Numbers(proto::SnapshotTaskNumbers { last: *last, evicted: *evicted })
            }
            Filed::Task(task) => PieceMessage::Task(task.to_message()),
            Filed::Targets(targets) => {
                let targets = targets.iter().map(Wire::to_message).collect();
                PieceMessage::Targets(proto::SnapshotTargets { targets })
            }
        };
        proto::SnapshotTask { piece: Some(piece) }
    }

    fn from_message(message: proto::SnapshotTask) -> Result<Filed, Error> {
        Ok(match present("piece", message.piece)? {
            PieceMessage::Numbers(numbers) => Filed::Numbers { last: numbers.last, evicted: numbers.evicted },
            PieceMessage::Task(task) => Filed::Task(Box::new(field("task", task)?)),
            PieceMessage::Targets(targets) => {
                let targets = each("targets", targets.targets, Target::from_message);
                Filed::Targets(targets.map_err(|error| error.within("targets"))?)
            }
        })
    }
}

#[cfg(test)]
pub(in crate::cluster::wire) mod tests {
    use fulmar_broker::{Generation, NodeId};

    use super::*;

    const ID: ObjectId = ObjectId([7; 12]);

    fn outcomes() -> [Outcome; 3] {
        let failure = Failure { code: "c".into(), message: "\u{e9}".into() };
        [
            Outcome::Success { output: "{}".into() },
            Outcome::Fail { failure: failure.clone(), again: true },
            Outcome::Fail { failure, again: false },
        ]
    }

    fn head(kind: Kind, full: bool) -> Head {
        let text = |text: &str| if full { text.into() } else { "".into() };
        let most = Policy { schedule_at: Some(LogTime(0)), retry_count: RETRIES_MAX, retry_interval_s: u32::MAX };
        Head {
            name: text("n\u{e9}"),
            kind,
            app_id: text("a"),
            document: if full { Bytes::from_static(b"{}") } else { Bytes::new() },
            filter: text("{}"),
            version: text("2"),
            policy: if full { most } else { Policy::default() },
            total: if full { u32::MAX } else { 0 },
        }
    }

    /// Every change, with all its fields and with none that can be absent.
    pub(in crate::cluster::wire) fn changes() -> Vec<Change> {
        let mut changes = vec![
            Change::Create { head: Box::new(head(Kind::CreateCommands, false)), targets: vec![] },
            Change::Extend { id: ID, from: u32::MAX, targets: vec!["d".into(), "".into()] },
            Change::Claim { id: ID, node: NodeId(u64::MAX), generation: Generation(0) },
            Change::Begin { id: ID, epoch: u64::MAX, targets: vec![0, u32::MAX] },
            Change::Finish { id: ID, epoch: 0, results: (0..).zip(outcomes()).collect() },
            Change::Stop { id: ID, targets: vec![] },
            Change::Retry { id: ID, targets: vec![3] },
            Change::Delete { id: ID },
            Change::Due { id: ObjectId::default() },
        ];
        changes.extend(KINDS.map(|(kind, _)| Change::Create {
            head: Box::new(head(kind, true)),
            targets: vec!["d1".into(), "d2".into()],
        }));
        changes.extend(outcomes().map(|outcome| Change::Told { id: ID, target: 1, outcome }));
        changes
    }

    fn back<T: Wire + PartialEq + std::fmt::Debug>(value: &T) {
        assert_eq!(T::from_message(value.to_message()).as_ref(), Ok(value));
    }

    #[test]
    fn everything_comes_back() {
        changes().iter().for_each(back);
        let answers =
            [Answer::Created(ID), Answer::Claimed(0), Answer::Begun(vec![]), Answer::Begun(vec![9]), Answer::Done];
        answers.iter().for_each(back);
        REFUSALS.map(|(refusal, _)| Answer::Refused(refusal)).iter().for_each(back);
        let filed = |status, owner| {
            Filed::Task(Box::new(FiledTask {
                id: ID,
                head: Arc::new(head(Kind::FirmwareUpgrade, true)),
                created: LogTime(1),
                status,
                epoch: 2,
                owner,
                begun: LogTime(3),
                cropped: true,
            }))
        };
        STATUSES.map(|(status, _)| filed(status, None)).iter().for_each(back);
        back(&filed(Status::Processing, Some((NodeId(1), Generation(2)))));
        let failure = Some(Arc::new(Failure { code: "c".into(), message: "".into() }));
        let target = |stage| Target {
            id: "d".into(),
            stage,
            tries: u8::MAX,
            next_try: LogTime(4),
            output: "{}".into(),
            failure: failure.clone(),
        };
        back(&Filed::Targets(STAGES.map(|(stage, _)| target(stage)).into()));
        back(&Filed::Numbers { last: u64::MAX, evicted: 1 });
    }

    /// A message with one field that cannot be so, and the name of that field.
    #[test]
    fn a_bad_field_is_named() {
        let change = |change| Change::from_message(proto::TaskChange { id: id_message(ID), change });
        let create = |head: proto::TaskHead| {
            change(Some(ChangeMessage::Create(proto::TaskCreate { head: Some(head), targets: vec![] })))
        };
        let good = || head(Kind::CreateCommands, true).to_message();
        let told = |outcome| change(Some(ChangeMessage::Told(proto::TaskResult { target: 0, outcome })));
        let short =
            proto::TaskChange { id: Bytes::from_static(b"x"), change: Some(ChangeMessage::Due(proto::TaskDue {})) };
        let target = |stage, tries| {
            let target = proto::SnapshotTarget { stage, tries, ..Default::default() };
            let targets = proto::SnapshotTargets { targets: vec![target] };
            Filed::from_message(proto::SnapshotTask { piece: Some(PieceMessage::Targets(targets)) }).map(|_| ())
        };
        let answer = |answer| Answer::from_message(proto::TaskAnswer { answer }).map(|_| ());
        let both = proto::TaskOutcome { output: "x".into(), failure: Some(Default::default()), again: false };
        let unwanted = proto::TaskOutcome { again: true, ..Default::default() };
        for (wrong, path) in [
            (change(None).map(|_| ()), "change"),
            (Change::from_message(short).map(|_| ()), "id"),
            (create(proto::TaskHead { kind: 0, ..good() }).map(|_| ()), "create.head.kind"),
            (create(proto::TaskHead { retry_count: 6, ..good() }).map(|_| ()), "create.head.retry_count"),
            (change(Some(ChangeMessage::Claim(proto::TaskClaim { by: None }))).map(|_| ()), "claim.by"),
            (told(None).map(|_| ()), "told.outcome"),
            (told(Some(both)).map(|_| ()), "told.outcome.output"),
            (told(Some(unwanted)).map(|_| ()), "told.outcome.again"),
            (target(0, 1), "targets.targets[0].stage"),
            (target(1, 256), "targets.targets[0].tries"),
            (answer(None), "answer"),
            (answer(Some(AnswerMessage::Refused(9))), "refused"),
            (answer(Some(AnswerMessage::Created(Bytes::new()))), "created"),
        ] {
            assert_eq!(wrong.expect_err(path).path, path);
        }
    }
}
