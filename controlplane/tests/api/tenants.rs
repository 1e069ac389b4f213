//! The served document, tried by a program that knows nothing but the document, as two tenants at once:
//! each asks also for what the other has made.

use std::process::Stdio;
use std::time::Duration;

use postern_controlplane::domain::MemberKind;
use postern_shared::time::Expiry;
use serde_json::json;
use tokio::process::Command;
use tokio::time::timeout;

use crate::world::{OFFICE, World, generous};

/// Made by `.ci/prerequisites test`.
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python/bin/schemathesis");
const CONFIG: &str = include_str!("schemathesis.toml");
/// Far beyond what it takes.
const HANG: Duration = Duration::from_secs(230);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_the_document_allows_is_answered_otherwise_to_either_of_two_tenants() {
    let world = World::with(generous());
    let mut tenants = Vec::new();
    for name in ["acme", "globex"] {
        let org = world.org(name).await;
        let group = world.group(org).await;
        let pair = world.pair(org, 3_600).await;
        world.member(org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
        world.report(&pair, OFFICE).await;
        let key = format!("Bearer {}", world.key(org).await.expose());
        tenants.push(json!({
            "name": name,
            "fixedHeaders": [{ "name": "Authorization", "value": key }],
        }));
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("keys.json"), json!({ "auth": tenants }).to_string())
        .unwrap();
    std::fs::write(folder.path().join("schemathesis.toml"), CONFIG).unwrap();

    let mut trial = Command::new(PROGRAM);
    trial
        .args(["run", "--header", &format!("X-Forwarded-For:{OFFICE}")])
        .arg(format!("http://{}/api/v1/openapi.json", world.address))
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(HANG, trial.output()).await.expect("it ends").expect("it is installed");

    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{told}");
}
