//! The least policies in `deploy/aws` are what the code asks, no more and no less.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use postern_agent::target::aws::{Action, PREFIX_LIST, SECURITY_GROUP, policy};

use crate::fake::{FakeEc2, Temper};
use crate::scene::{self, Provider};

#[test]
fn the_policies_allow_what_the_code_calls() {
    for (name, actions) in [("security-group", &SECURITY_GROUP[..]), ("prefix-list", &PREFIX_LIST)]
    {
        let path = folder().join(name).with_extension("json");

        let written = fs::read_to_string(&path).unwrap_or_default();

        let is_json = serde_json::from_str::<serde_json::Value>(&policy(actions)).is_ok();
        assert!(is_json && written == policy(actions), "{}:\n{}", path.display(), policy(actions));
    }
}

#[tokio::test(start_paused = true)]
async fn with_its_policy_a_target_does_all_that_it_does() {
    for kind in Provider::ALL {
        let fake = FakeEc2::new(1, Temper::default());
        fake.state().allowed = Some(allowed(actions(kind)));

        scene::everything(kind, &fake).await.unwrap();

        let mut called: BTreeSet<String> =
            fake.take_calls().into_keys().map(|name| format!("ec2:{name}")).collect();
        if kind == Provider::SecurityGroup {
            called.insert(Action::CreateTags.to_string());
        }
        assert_eq!(called, allowed(actions(kind)), "no more than it does");
    }
}

#[tokio::test(start_paused = true)]
async fn an_action_that_is_not_allowed_is_named() {
    for kind in Provider::ALL {
        for missing in actions(kind) {
            let fake = FakeEc2::new(1, Temper::default());
            let mut rest = allowed(actions(kind));
            rest.remove(&missing.to_string());
            fake.state().allowed = Some(rest);

            let refused = scene::everything(kind, &fake).await.unwrap_err().to_string();

            assert!(refused.contains(&missing.to_string()), "{missing}: {refused}");
        }
    }
}

fn actions(kind: Provider) -> &'static [Action] {
    match kind {
        Provider::SecurityGroup => &SECURITY_GROUP,
        Provider::PrefixList => &PREFIX_LIST,
    }
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/aws"))
}

/// The actions of a policy, as the document names them.
fn allowed(actions: &[Action]) -> BTreeSet<String> {
    let document: serde_json::Value = serde_json::from_str(&policy(actions)).unwrap();
    let statements = document["Statement"].as_array().unwrap().iter();
    let named = statements.flat_map(|statement| statement["Action"].as_array().unwrap());
    named.map(|action| action.as_str().unwrap().to_owned()).collect()
}
