//! Version 1 of the wire never loses or renames a field: every type against its golden file.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail loudly and read its golden files"
)]

use std::fs;
use std::path::Path;

use postern_shared::allowlist::Allowlist;
use postern_shared::digest::Digest;
use postern_shared::ids::{AgentId, Epoch, GroupId};
use postern_shared::position::Revision;
use postern_shared::time::{Expiry, Timestamp};
use postern_shared::wire::v1::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Holds `value` against `golden/{name}`, in both directions.
fn golden<T>(name: &str, value: &T)
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let written = format!("{}\n", serde_json::to_string_pretty(value).unwrap());
    let golden = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; it should hold\n{written}", path.display()));

    assert_eq!(written, golden, "{name}: what we write is not what version 1 says");
    assert_eq!(&serde_json::from_str::<T>(&golden).unwrap(), value, "{name} reads back otherwise");
}

fn group() -> GroupId {
    GroupId::from_random([1; 16])
}

fn epoch() -> Epoch {
    Epoch::from_random([2; 16])
}

fn as_of() -> Timestamp {
    "2026-01-31T12:00:00Z".parse().unwrap()
}

fn entries() -> Vec<Entry> {
    vec![
        Entry {
            cidr: "203.0.113.7".parse().unwrap(),
            expires_at: Expiry::At("2026-02-01T12:00:00.250Z".parse().unwrap()),
        },
        Entry { cidr: "2001:db8::/48".parse().unwrap(), expires_at: Expiry::Never },
    ]
}

fn digest() -> Digest {
    let list: Allowlist = entries().into_iter().map(|e| (e.cidr, e.expires_at)).collect();
    list.digest_at(as_of())
}

#[test]
fn the_stream_says_what_it_said() {
    let snapshot = Snapshot {
        group: group(),
        epoch: epoch(),
        revision: Revision(41),
        as_of: as_of(),
        digest: digest(),
        entries: entries(),
    };
    golden("snapshot.json", &snapshot);
    golden(
        "delta.json",
        &Delta {
            group: group(),
            epoch: epoch(),
            from: Revision(41),
            base: digest(),
            revision: Revision(44),
            as_of: as_of(),
            digest: Digest::EMPTY,
            add: entries(),
            remove: vec!["198.51.100.0/24".parse().unwrap()],
        },
    );
    golden(
        "same.json",
        &Same {
            group: group(),
            epoch: epoch(),
            revision: Revision(41),
            as_of: as_of(),
            digest: digest(),
        },
    );
    golden("withdrawn.json", &Withdrawn { group: group() });
}

#[test]
fn an_event_is_one_block_of_lines() {
    let text = StreamEvent::Withdrawn(Withdrawn { group: group() }).to_sse().unwrap();

    assert_eq!(text, format!("event: withdrawn\ndata: {{\"group\":\"{}\"}}\n\n", group()));
    let read = StreamEvent::from_sse("withdrawn", &format!("{{\"group\":\"{}\"}}", group()));
    assert_eq!(read.unwrap().unwrap(), StreamEvent::Withdrawn(Withdrawn { group: group() }));
    assert!(StreamEvent::from_sse("later", "{}").is_none());
}

#[test]
fn lists_and_answers_say_what_they_said() {
    let meta = Meta {
        request_id: "req_1".to_owned(),
        timestamp: as_of(),
        next_cursor: Some("Zm9v".to_owned()),
    };
    let source = Source {
        kind: SourceKind::Pair,
        id: "6f1c9a52-6a0f-4f0e-9d2b-0d6f0f6f3f10".to_owned(),
        name: "laptop".to_owned(),
    };
    let listed = entries().into_iter().map(|entry| ListedEntry::new(entry, vec![source.clone()]));
    let ips = GroupIps {
        group: group(),
        ips: vec!["203.0.113.7".to_owned(), "2001:db8::/48".to_owned()],
        entries: listed.collect(),
        as_of: as_of(),
        epoch: epoch(),
        revision: Revision(41),
        digest: digest(),
    };
    golden("group_ips.json", &Envelope { data: ips, meta });
    golden(
        "problem.json",
        &Problem {
            r#type: "invalid_fields".to_owned(),
            title: "Some fields are not valid".to_owned(),
            status: 422,
            detail: Some("see `errors`".to_owned()),
            request_id: "req_1".to_owned(),
            errors: vec![FieldError {
                detail: "`10.0.0.1/8` has host bits set; the network is 10.0.0.0/8".to_owned(),
                pointer: "/cidr".to_owned(),
            }],
        },
    );
}

#[test]
fn beacons_say_what_they_said() {
    golden("beacon_request.json", &BeaconRequest { visit: Some("v".to_owned()) });
    let answer = |confirmation| BeaconAnswer {
        ipv4: Some([203, 0, 113, 7].into()),
        ipv6: None,
        moved: true,
        expires_at: as_of(),
        next: 300,
        visit: "v".to_owned(),
        confirmation,
    };
    let waiting = Confirmation { open: 2, of: 3, ..Confirmation::default() };
    golden("beacon_answer.json", &answer(waiting));
    let held = Confirmation { open: 2, of: 6, held: 1, failed: 2 };
    golden("beacon_answer_held.json", &answer(held));
}

#[test]
fn agents_say_what_they_said() {
    let agent_group = AgentGroup { id: group(), number: 7, name: "ops".to_owned() };
    let agent = AgentId::from_random([3; 16]);
    golden(
        "enrol_request.json",
        &EnrolRequest { host: "web-1".to_owned(), version: "0.1.0".to_owned() },
    );
    golden(
        "enrol_answer.json",
        &EnrolAnswer {
            agent,
            name: "web-1".to_owned(),
            token: "poa_…".to_owned(),
            bookmark: "pob_…".to_owned(),
            groups: vec![agent_group.clone()],
        },
    );
    golden(
        "agent_update.json",
        &AgentUpdate {
            host: "web-1".to_owned(),
            version: "0.1.0".to_owned(),
            targets: vec![TargetStatus {
                name: "ssh".to_owned(),
                kind: "nftables".to_owned(),
                groups: vec![group()],
            }],
        },
    );
    golden(
        "agent_self.json",
        &AgentSelf { agent, name: "web-1".to_owned(), groups: vec![agent_group] },
    );
    golden(
        "receipts.json",
        &Receipts {
            receipts: vec![Receipt {
                target: "ssh".to_owned(),
                group: group(),
                epoch: epoch(),
                revision: Revision(41),
                digest: digest(),
                state: ReceiptState::Held,
                entries: 2,
                detail: Some("10.0.0.0/8 is wider than /24".to_owned()),
            }],
        },
    );
}
