//! Answers that outlive the process which gave them, and are told to nobody else.

use serde_json::{Value, json};

use crate::plane::{Daemon, Plane, store};

fn create(daemon: &Daemon, key: &str) -> Value {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = format!("http://{}/api/v1/pairs", daemon.address);
    runtime.block_on(async {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = http.post(url).bearer_auth(key).header("idempotency-key", "one");
        let request = request.header("x-forwarded-for", "198.51.100.7");
        let answer = request.json(&json!({ "name": "ops-vps-1" })).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let mut body: Value = answer.json().await.unwrap();
        body["data"].take()
    })
}

#[test]
fn an_acknowledged_answer_is_given_again_after_kill_9_and_is_not_in_the_store() {
    let plane = Plane::make();
    let mint = ["key", "mint", "--name", "ci", "--scope", "pairs.write", "--origin"];
    let minted = plane.json(&[&mint[..], &["198.51.100.0/24"]].concat());
    let key = minted["secret"].as_str().unwrap();
    let daemon = plane.start();

    let first = create(&daemon, key);
    daemon.kill();
    let daemon = plane.start();
    let again = create(&daemon, key);

    assert_eq!(first, again);
    assert_eq!(plane.json(&["pair", "list"]).as_array().unwrap().len(), 1);
    drop(daemon);
    let bytes = std::fs::read(store(&plane.data())).unwrap();
    for secret in [&first["bookmark"], &first["server_key"]] {
        let secret = secret.as_str().unwrap().as_bytes();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
}
