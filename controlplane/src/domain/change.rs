//! The steps that turn one state into the next.

use postern_shared::ids::{GroupId, MemberId, PairId};

use super::agent::{Agent, Enrolment};
use super::audit::AuditRecord;
use super::group::{Group, Member};
use super::key::Key;
use super::org::{Org, User};
use super::pair::{Pair, Report};
use super::replay::{Replay, ReplayId};

/// One step: a record as it is from now on, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is its record")]
pub enum Change {
    PutOrg(Org),
    PutUser(User),
    PutKey(Key),
    PutPair(Pair),
    PutReport(Report),
    PutGroup(Group),
    /// The group's members go with it.
    DeleteGroup(GroupId),
    PutMember(Member),
    DeleteMember(GroupId, MemberId),
    PutAgent(Agent),
    PutEnrolment(Enrolment),
    Record(AuditRecord),
    /// The pair is nowhere from now on.
    DeleteReport(PairId),
    PutReplay(Replay),
    DeleteReplay(ReplayId),
}
