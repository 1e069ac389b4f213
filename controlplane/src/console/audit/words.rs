//! Records of the audit, in words.

use std::collections::BTreeSet;

use postern_shared::ids::{GroupId, PairId, UserId};
use postern_shared::network::Network;
use postern_shared::scope::ScopeSet;
use postern_shared::time::Expiry;

use crate::audit::Kind;
use crate::domain::{Actor, AuditRecord, Event, MemberKind, Origin, Refusal, State};

/// The kinds to choose from, with their names.
pub(super) fn kinds() -> Vec<(&'static str, String)> {
    Kind::all().iter().map(|kind| (kind.name(), kind.name().replace('_', " "))).collect()
}

/// Who did it.
pub(super) fn who(state: &State, record: &AuditRecord) -> String {
    match record.actor {
        Actor::Operator => "the operator, on the host".to_owned(),
        Actor::Unknown => "nobody known".to_owned(),
        Actor::Key(id) => named("key", state.key(id).map(|key| key.name.as_str())),
        Actor::Pair(id) => pair(state, id),
        Actor::Agent(id) => named("host", state.agent(id).map(|agent| agent.name.as_str())),
        Actor::Enrolment(id) => {
            let invited = state.enrolment(id).map(|invited| invited.name.as_str());
            named("the invitation for", invited)
        }
        Actor::User(id) => user(state, id),
    }
}

/// What happened. Long, because each kind has a sentence of its own and none may be forgotten.
pub(super) fn what(state: &State, event: &Event) -> String {
    match event {
        Event::OrgCreated { name, email, .. } => format!("began {name}, with {email} as its admin"),
        Event::KeyMinted { name, scopes, origins, expires, .. } => {
            format!("minted the key {name}: {}{}", rights(state, *scopes, origins), ends(*expires))
        }
        Event::KeyNarrowed { name, scopes, origins, .. } => {
            format!("narrowed the key {name} to {}", rights(state, *scopes, origins))
        }
        Event::KeyRevoked { name, .. } => format!("revoked the key {name}"),
        Event::PairCreated { number, name, .. } => format!("made pair {number}, {name}"),
        Event::PairEdited { name, ttl, .. } => {
            format!("edited the pair {name}: its address counts {} s", ttl.as_secs())
        }
        Event::PairDeleted { name, .. } => format!("deleted the pair {name}"),
        Event::PairReported { pair: id, ipv4, ipv6, moved } => {
            let v4 = ipv4.map(|spot| spot.address.to_string());
            let v6 = ipv6.map(|spot| spot.address.to_string());
            let verb = if *moved { "is now at" } else { "is still at" };
            let places: Vec<String> = v4.into_iter().chain(v6).collect();
            format!("{} {verb} {}", pair(state, *id), places.join(" and "))
        }
        Event::BookmarkRotated { name, .. } => format!("gave the pair {name} another bookmark"),
        Event::ServerKeyRotated { name, .. } => format!("gave the pair {name} another server key"),
        Event::GroupCreated { number, name, .. } => format!("made group {number}, {name}"),
        Event::GroupEdited { name, ttl, .. } => match ttl {
            Some(ttl) => format!("edited the group {name}: closes after {} s", ttl.as_secs()),
            None => format!("edited the group {name}"),
        },
        Event::GroupDeleted { group, name } => format!("deleted the group {name} ({group})"),
        Event::MemberAdded { group: id, name, kind, expires, .. } => {
            let member = member(kind, name.as_str());
            format!("added {member} to {}{}", group(state, *id), ends(*expires))
        }
        Event::MemberRemoved { group: id, name, kind, .. } => {
            let name = name.as_ref().map_or("", |name| name.as_str());
            format!("took {} out of {}", member(kind, name), group(state, *id))
        }
        Event::AgentInvited { name, groups, expires_at, .. } => {
            format!("invited the host {name} into {}, until {expires_at}", all(state, groups))
        }
        Event::AgentEnrolled { name, groups, .. } => {
            format!("enrolled as the host {name}, into {}", all(state, groups))
        }
        Event::AgentRegrouped { agent, groups } => {
            let name = named("the host", state.agent(*agent).map(|agent| agent.name.as_str()));
            format!("gave {name} other groups: {}", all(state, groups))
        }
        Event::AgentRevoked { name, .. } => format!("revoked the host {name}"),
        Event::ReceiptFailed { target, group: id, detail, .. } => {
            let list = group(state, *id);
            format!("could not put the list of {list} in force on {target}: {detail}")
        }
        Event::RequestsRefused { refusal, count, since } => {
            format!("was refused {count} times since {since}: {}", why(*refusal))
        }
        Event::UserInvited { email, role, .. } => format!("invited {email} as {}", role.name()),
        Event::UserAccepted { email, .. } => {
            format!("set password and authenticator of {email}, by a link")
        }
        Event::SignInTried { user: id } => format!("tried to prove to be {}", user(state, *id)),
        Event::SignedIn { by_recovery_code: true, .. } => "signed in by a recovery code".to_owned(),
        Event::SignedIn { by_recovery_code: false, .. } => "signed in".to_owned(),
        Event::SignedOut { user: id, logins } => {
            let browsers = if *logins == 1 { "browser" } else { "browsers" };
            format!("signed {} out of {logins} {browsers}", user(state, *id))
        }
        Event::PasswordSet { by_reset: true, .. } => "set another password, by a link".to_owned(),
        Event::PasswordSet { by_reset: false, .. } => "set another password".to_owned(),
        Event::ResetRequested { user: id } => {
            format!("asked for a link that resets the password of {}", user(state, *id))
        }
        Event::RecoveryIssued { email, .. } => format!("made a link that lets {email} back in"),
        Event::AuthenticatorReplaced { .. } => "enrolled another authenticator".to_owned(),
        Event::RecoveryCodesReplaced { .. } => "made new recovery codes".to_owned(),
        Event::UserRoleSet { email, role, .. } => format!("made {email} {}", role.name()),
        Event::UserRemoved { email, .. } => format!("removed {email}"),
        Event::AddressesClosed { name, .. } => {
            format!("closed the address of the pair {name} until it reports again")
        }
        Event::BookmarkMailed { name, to, .. } => {
            format!("had the bookmark of the pair {name} mailed to {to}")
        }
    }
}

fn why(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::WrongSecret => "the secret was wrong",
        Refusal::ForbiddenOrigin => "the secret does not work from there",
        Refusal::InsufficientScope => "the key lacks a scope",
        Refusal::RateLimited => "there were too many",
        Refusal::MovedTooOften => "the bookmark had moved too often",
    }
}

fn rights(state: &State, scopes: ScopeSet, origins: &[Origin]) -> String {
    let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    let origin = |origin: &Origin| match origin {
        Origin::Network(network) => shown(*network),
        Origin::Pair(id) => format!("where {} is", pair(state, *id)),
    };
    let from = origins.iter().map(origin).collect::<Vec<_>>().join(", ");
    let scopes = if scopes.is_empty() { "nothing".to_owned() } else { scopes.join(", ") };
    if from.is_empty() {
        format!("{scopes}, from nowhere")
    } else {
        format!("{scopes}, from {from}")
    }
}

fn member(kind: &MemberKind, name: &str) -> String {
    match kind {
        MemberKind::Pair(_) => named("the pair", Some(name).filter(|name| !name.is_empty())),
        MemberKind::Network { network, note } => format!("{} ({note})", shown(*network)),
    }
}

fn group(state: &State, id: GroupId) -> String {
    match state.group(id) {
        Some(row) => format!("group {} ({})", row.record.number, row.record.name),
        None => "a group that is gone".to_owned(),
    }
}

fn pair(state: &State, id: PairId) -> String {
    match state.pair(id) {
        Some(row) => format!("pair {} ({})", row.record.number, row.record.name),
        None => "a pair".to_owned(),
    }
}

fn user(state: &State, id: UserId) -> String {
    state.user(id).map_or_else(|| "a person".to_owned(), |user| user.email.to_string())
}

fn named(kind: &str, name: Option<&str>) -> String {
    name.map_or_else(|| kind.to_owned(), |name| format!("{kind} {name}"))
}

fn ends(expires: Expiry) -> String {
    match expires {
        Expiry::At(at) => format!(", until {at}"),
        Expiry::Never => String::new(),
    }
}

fn all(state: &State, groups: &BTreeSet<GroupId>) -> String {
    groups.iter().map(|id| group(state, *id)).collect::<Vec<_>>().join(", ")
}

/// A host without its prefix length.
fn shown(network: Network) -> String {
    if network.is_host() { network.address().to_string() } else { network.to_string() }
}
