//! The way of an address through the plane, from the invitation of an agent to its receipt.

use postern_controlplane::domain::MemberKind;
use postern_shared::time::Expiry;
use postern_shared::token::Token;
use postern_shared::wire::v1::{EnrolAnswer, Envelope, StreamEvent};
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{OFFICE, World, within};

pub(crate) const HOST: &str = "203.0.113.50";

pub(crate) struct Agent {
    pub(crate) token: Token,
    pub(crate) bookmark: Token,
    pub(crate) answer: EnrolAnswer,
}

/// Turns an invitation into an agent.
pub(crate) async fn enrol(world: &World, invitation: &Token) -> Agent {
    let body = json!({ "host": "web-1", "version": "0.1.0" });
    let caller = world.holder(invitation, HOST);
    let answer = caller.json(Method::POST, "/api/v1/agents/enroll", &body).await;
    assert_eq!(answer.status(), 201);
    let Envelope::<EnrolAnswer> { data, .. } = within(answer.json()).await.unwrap();
    Agent {
        token: data.token.parse().unwrap(),
        bookmark: data.bookmark.parse().unwrap(),
        answer: data,
    }
}

#[tokio::test]
async fn an_address_goes_all_the_way_from_the_bookmark_to_the_receipt() {
    let world = World::start();
    let org = world.org("acme").await;
    let group = world.group(org).await;
    let pair = world.pair(org, 3_600).await;
    world.member(org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
    let invitation = world.invite(org, &[group]).await;

    let agent = enrol(&world, &invitation).await;
    assert_eq!(agent.answer.name, "gatekeeper");
    assert_eq!(agent.answer.groups.iter().map(|group| group.id).collect::<Vec<_>>(), [group]);

    // The credential works only from where the agent's own beacon said that it is.
    let caller = world.holder(&agent.token, HOST);
    let update = json!({ "host": "web-1", "version": "0.1.0",
        "targets": [{ "name": "fw", "kind": "nftables", "groups": [group] }] });
    let early = caller.json(Method::PUT, "/api/v1/agents/self", &update).await;
    assert_eq!(early.status(), 403);
    let own = format!("/b/{}", agent.bookmark.expose());
    assert_eq!(world.at(HOST).send(Method::POST, &own).await.status(), 200);
    let introduced = caller.json(Method::PUT, "/api/v1/agents/self", &update).await;
    assert_eq!(introduced.status(), 200);

    let mut events = caller.stream(&[group.to_string()]).await;
    let StreamEvent::Snapshot(snapshot) = events.event().await else { panic!() };
    assert!(snapshot.entries.is_empty());

    let reported = world.report(&pair, OFFICE).await;
    assert_eq!(reported["data"]["moved"], true);
    assert_eq!(reported["data"]["confirmation"], json!({ "open": 0, "of": 1 }));
    let StreamEvent::Delta(delta) = events.event().await else { panic!() };
    assert_eq!(delta.add[0].cidr.to_string(), "198.51.100.7/32");
    assert_eq!((delta.from, delta.base), (snapshot.revision, snapshot.digest));

    let receipt = json!({ "receipts": [{
        "target": "fw", "group": group, "epoch": delta.epoch, "revision": delta.revision,
        "digest": delta.digest, "state": "applied", "entries": 1 }] });
    let noted = caller.json(Method::POST, "/api/v1/agents/self/receipts", &receipt).await;
    assert_eq!(noted.status(), 204);
    let again = world.report(&pair, OFFICE).await;
    assert_eq!(again["data"]["moved"], false);
    assert_eq!(again["data"]["confirmation"], json!({ "open": 1, "of": 1 }));

    let ips: Value = caller.data(&format!("/api/v1/groups/{group}/ips")).await;
    assert_eq!(ips["ips"], json!([OFFICE]));
    assert_eq!(ips["entries"][0].get("sources"), None);
}
