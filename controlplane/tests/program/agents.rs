//! Agents from the invitation to their end, as the operator sees them.

use std::net::SocketAddr;

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::plane::Plane;

/// Where the agent's host is.
const HOST: &str = "198.51.100.20";

/// An agent as raw HTTP.
struct Agent {
    runtime: Runtime,
    http: Client,
    plane: SocketAddr,
    token: String,
}

impl Agent {
    /// Uses the invitation up, and reports where the host is.
    fn enrol(plane: SocketAddr, invitation: &str) -> Agent {
        let token = invitation.split_once('#').unwrap().1.to_owned();
        let http = Client::builder().no_proxy().build().unwrap();
        let mut agent = Agent { runtime: Runtime::new().unwrap(), http, plane, token };
        let host = json!({"host": "web-1", "version": "1.2.3"});
        let (status, answer) = agent.send(Method::POST, "/api/v1/agents/enroll", &host);
        assert_eq!(status, 201, "{answer}");
        agent.token = answer["data"]["token"].as_str().unwrap().to_owned();
        let bookmark = format!("/b/{}", answer["data"]["bookmark"].as_str().unwrap());
        assert_eq!(agent.send(Method::POST, &bookmark, &json!({})).0, 200);
        agent
    }

    fn send(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let request = self.http.request(method, format!("http://{}{path}", self.plane));
        let request = request.header("x-forwarded-for", HOST).header("accept", "application/json");
        let request = request.bearer_auth(&self.token).json(body);
        self.runtime.block_on(async {
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            (status, answer.json().await.unwrap_or_default())
        })
    }

    /// Says what the host is, with one target that holds `group`.
    fn introduce(&self, group: &Value) {
        let target = json!({"name": "fw", "kind": "nftables", "groups": [group]});
        let update = json!({"host": "web-1", "version": "1.2.3", "targets": [target]});
        assert_eq!(self.send(Method::PUT, "/api/v1/agents/self", &update).0, 200);
    }
}

#[test]
fn an_agent_is_seen_with_its_receipts_given_other_groups_and_revoked() {
    let plane = Plane::make();
    let daemon = plane.start();
    let ssh = plane.json(&["group", "add", "ssh"]);
    let web = plane.json(&["group", "add", "web"]);
    let invited = plane.json(&["agent", "invite", "web-1", "--group", "ssh", "--valid", "10m"]);
    let agent = Agent::enrol(daemon.address, invited["invitation"].as_str().unwrap());
    agent.introduce(&ssh["id"]);
    let shown = plane.json(&["group", "show", "ssh"]);
    let receipt = json!({
        "target": "fw", "group": ssh["id"], "epoch": shown["epoch"],
        "revision": shown["revision"], "digest": shown["digest"],
        "state": "failed", "entries": 0, "detail": "no room left",
    });
    let receipts = json!({"receipts": [receipt]});
    assert_eq!(agent.send(Method::POST, "/api/v1/agents/self/receipts", &receipts).0, 204);

    let listed = plane.json(&["agent", "list"]);
    let printed = plane.run(&["agent", "list"]);

    assert_eq!(listed[0]["name"], "web-1");
    assert_eq!(listed[0]["groups"][0]["name"], "ssh");
    assert_eq!(listed[0]["receipts"], json!([receipt]));
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("failed") && printed.contains("no room left"), "{printed}");

    let regrouped = plane.json(&["agent", "set-groups", "web-1", "--group", "web"]);
    assert_eq!(regrouped["groups"][0]["id"], web["id"]);
    let foreign = format!("/api/v1/groups/{}/ips", ssh["id"].as_str().unwrap());
    assert_eq!(agent.send(Method::GET, &foreign, &json!({})).0, 404);

    plane.json(&["agent", "revoke", "web-1"]);

    let own = format!("/api/v1/groups/{}/ips", web["id"].as_str().unwrap());
    assert_eq!(agent.send(Method::GET, &own, &json!({})).0, 401);
    assert!(plane.json(&["agent", "list"]).as_array().unwrap().is_empty());
    assert!(plane.json(&["agent", "list", "--all"])[0]["revoked_at"].is_string());
    assert!(plane.json(&["pair", "list"]).as_array().unwrap().is_empty());
}
