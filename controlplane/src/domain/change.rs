//! The steps that turn one state into the next.

use postern_shared::ids::{GroupId, MemberId, OrgId, PairId, UserId};
use postern_shared::token::TokenHash;

use super::account::Account;
use super::agent::{Agent, Enrolment};
use super::audit::AuditRecord;
use super::group::{Group, Member};
use super::key::Key;
use super::login::Login;
use super::org::{Org, User};
use super::pair::{Pair, Report};
use super::replay::{Replay, ReplayId};
use super::ticket::Ticket;

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
    PutAccount(Account),
    PutLogin(Login),
    DeleteLogin(TokenHash),
    PutTicket(Ticket),
    DeleteTicket(TokenHash),
    /// A mail address, in the form that `fold` makes of it, belongs to one user of the org.
    TakeEmail(OrgId, String, UserId),
    FreeEmail(OrgId, String),
}
