//! The predecessor's own first steps, with another host and another key.

use std::process::Command;

use serde_json::Value;

use crate::plane::Plane;

const SCRIPT: &str = include_str!("quickstart.sh");

#[test]
fn the_predecessors_quickstart_works_with_another_host_and_key() {
    let plane = Plane::make();
    for number in 1..=7 {
        plane.json(&["group", "add", &format!("group {number}")]);
    }
    let office = ["--network", "203.0.113.0/24", "--note", "office"];
    plane.json(&[&["group", "add-member", "7"][..], &office].concat());
    let mint = ["key", "mint", "--name", "ops", "--origin", "127.0.0.1"];
    let scopes = ["account.read", "pairs.write", "groups.read"].map(|scope| ["--scope", scope]);
    let minted = plane.json(&[&mint[..], scopes.as_flattened()].concat());
    let daemon = plane.start();
    let host = format!("http://{}", daemon.address);

    let ran = Command::new("bash")
        .args(["-c", &SCRIPT.replace("https://plane.example.org", &host)])
        .env("IPAUTH_API_KEY", minted["secret"].as_str().unwrap())
        .output()
        .unwrap();

    assert!(ran.status.success(), "{ran:?}");
    let answers = serde_json::Deserializer::from_slice(&ran.stdout).into_iter::<Value>();
    let answers: Vec<Value> = answers.collect::<Result<_, _>>().unwrap();
    assert_eq!(answers.len(), 3);
    for answer in &answers {
        assert!(answer["meta"]["request_id"].as_str().unwrap().starts_with("req_"), "{answer}");
        let time = answer["meta"]["timestamp"].as_str().unwrap();
        time.parse::<postern_shared::time::Timestamp>().unwrap();
    }
    assert_eq!(answers[0]["data"]["counts"]["groups"], 7);
    assert_eq!(answers[1]["data"]["name"], "ops-vps-1");
    assert!(answers[1]["data"]["server_key"].as_str().unwrap().starts_with("pos_"));
    assert_eq!(answers[2]["data"]["ips"], serde_json::json!(["203.0.113.0/24"]));
}
