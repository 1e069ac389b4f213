//! The least tokens in `deploy/cloudflare` are what the code asks, no more and no less.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use postern_agent::target::TargetError;
use postern_agent::target::cloudflare::{
    ACCESS_RULES_OF_ACCOUNT, ACCESS_RULES_OF_ZONE, Action, Cloudflare, LIST, token,
};
use postern_shared::allowlist::Allowlist;

use crate::fake::{FakeCloudflare, Temper};
use crate::scene::{self, Clock, Provider};
use crate::transport::{self, Hostility};

#[test]
fn the_tokens_allow_what_the_code_calls() {
    for kind in Provider::ALL {
        let path = folder().join(name(kind)).with_extension("json");

        let written = fs::read_to_string(&path).unwrap_or_default();

        let least = token(actions(kind));
        let is_json = serde_json::from_str::<serde_json::Value>(&least).is_ok();
        assert!(is_json && written == least, "{}:\n{least}", path.display());
    }
}

#[tokio::test(start_paused = true)]
async fn with_its_token_a_target_does_all_that_it_does() {
    for kind in Provider::ALL {
        let fake = FakeCloudflare::new(1, Temper::default());
        fake.state().allowed = Some(allowed(kind));

        everything(kind, &fake).await.unwrap();

        let called: BTreeSet<String> = fake.take_calls().into_keys().collect();
        let named = actions(kind).iter().map(|action| format!("{action:?}"));
        let named = named.map(|name| name.split('(').next().unwrap().to_owned());
        assert_eq!(called, named.collect(), "no more than it does");
    }
}

#[tokio::test(start_paused = true)]
async fn a_permission_that_is_missing_is_named() {
    for (kind, permission) in [
        (Provider::List, "Account > Account Filter Lists > Edit"),
        (Provider::AccountRules, "Account > Account Firewall Access Rules > Edit"),
        (Provider::ZoneRules, "Zone > Firewall Services > Edit"),
    ] {
        let fake = FakeCloudflare::new(1, Temper::default());
        let others = Provider::ALL.into_iter().filter(|other| *other != kind);
        fake.state().allowed = Some(others.flat_map(allowed).collect());

        let refused = everything(kind, &fake).await.unwrap_err().to_string();

        assert!(refused.contains(permission), "{refused}");
    }
}

/// All that a target ever does: reads, adds, renews, takes away, finds somebody else in its place.
async fn everything(kind: Provider, fake: &FakeCloudflare) -> Result<(), TargetError> {
    scene::furnish(fake);
    let (clock, hour) = (Clock::start(), Duration::from_secs(3600));
    let calls = Cloudflare::CALLS_PER_MINUTE_MAX;
    let (cloudflare, _) = transport::client(fake, 1, Hostility::NONE, calls);
    let mut target = scene::start(kind, cloudflare);
    scene::meddle(kind, fake, "198.51.100.8/32".parse().unwrap(), "office");

    let networks = ["198.51.100.7/32", "198.51.100.8/32", "2001:db8::/64"];
    target.pass(&scene::wanted(clock, &networks, hour), clock).await?;
    target.pass(&scene::wanted(clock, &networks[..1], hour / 2), clock).await?;
    target.pass(&Allowlist::new(), clock).await?;
    Ok(())
}

fn name(kind: Provider) -> &'static str {
    match kind {
        Provider::List => "list",
        Provider::AccountRules => "access-rules-of-account",
        Provider::ZoneRules => "access-rules-of-zone",
    }
}

fn actions(kind: Provider) -> &'static [Action] {
    match kind {
        Provider::List => &LIST,
        Provider::AccountRules => &ACCESS_RULES_OF_ACCOUNT,
        Provider::ZoneRules => &ACCESS_RULES_OF_ZONE,
    }
}

/// The permission groups of a token, as the document names them.
fn allowed(kind: Provider) -> BTreeSet<String> {
    let document: serde_json::Value = serde_json::from_str(&token(actions(kind))).unwrap();
    let policies = document["policies"].as_array().unwrap().iter();
    let groups = policies.flat_map(|policy| policy["permission_groups"].as_array().unwrap());
    groups.map(|group| group["name"].as_str().unwrap().to_owned()).collect()
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/cloudflare"))
}
