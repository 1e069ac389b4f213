//! What changes cost in calls, beside what they cost who replaces the whole list each time.

use std::time::Duration;

use postern_agent::target::TargetError;
use postern_agent::target::cloudflare::Cloudflare;
use postern_shared::allowlist::Allowlist;
use serde_json::{Value, json};

use crate::alike::costs;
use crate::fake::{FakeCloudflare, Request, Temper};
use crate::scene::{self, ACCOUNT, Clock, LIST, Provider};
use crate::transport::{self, Hostility};

/// The rows of README's table: 1 address in, 1 out, 100 at once, an hour in which nothing happens.
#[tokio::test(start_paused = true)]
async fn calls_are_as_few_as_the_readme_says() {
    assert_eq!(ours(Provider::List).await, [3, 3, 3, 60], "a list");
    assert_eq!(ours(Provider::AccountRules).await, [1, 1, 102, 120], "access rules");
    assert_eq!(replaced(Provider::List).await, [2, 2, 2, 120], "a list, replaced");
    assert_eq!(replaced(Provider::AccountRules).await, [42, 42, 141, 14_520], "rules, replaced");
}

async fn ours(kind: Provider) -> [usize; 4] {
    let (fake, clock) = (fake(), Clock::start());
    let calls = Cloudflare::CALLS_PER_MINUTE_MAX;
    let (cloudflare, _) = transport::client(&fake, 1, Hostility::NONE, calls);
    let mut target = scene::start(kind, cloudflare);
    // A budget, and a time for each write, hold many calls up.
    let make = async |wanted: &Allowlist| {
        while let Err(error) = target.pass(wanted, clock).await {
            let TargetError::Throttled { wait } = error else { panic!("{error}") };
            tokio::time::sleep(wait).await;
        }
    };
    costs(clock, || count(&fake), make).await
}

/// The same for a program that knows no difference. A list can be replaced by one call, and a look at
/// what became of it, with everything in it that others have put there. Rules are read, all taken away
/// and all added. Every minute, since it cannot know whether that is still needed.
async fn replaced(kind: Provider) -> [usize; 4] {
    let fake = fake();
    fake.state().temper.calls_max = usize::MAX;
    costs(Clock::start(), || count(&fake), async |wanted| replace(kind, &fake, wanted).await).await
}

async fn replace(kind: Provider, fake: &FakeCloudflare, wanted: &Allowlist) {
    match kind {
        Provider::List => {
            let path = format!("accounts/{ACCOUNT}/rules/lists/{LIST}/items");
            let items = wanted.iter().map(|(network, _)| json!({ "ip": network.to_string() }));
            let told = ask(fake, "PUT", &path, items.collect());
            let operation = told["operation_id"].as_str().unwrap().to_owned();
            let path = format!("accounts/{ACCOUNT}/rules/lists/bulk_operations/{operation}");
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if ask(fake, "GET", &path, Value::Null)["status"] == "completed" {
                    return;
                }
            }
        }
        Provider::AccountRules | Provider::ZoneRules => {
            let path = format!("accounts/{ACCOUNT}/firewall/access_rules/rules");
            let mut ids = Vec::new();
            for page in 1.. {
                let query = format!("{path}?mode=whitelist&per_page=100&page={page}");
                let told = ask(fake, "GET", &query, Value::Null);
                let rules = told.as_array().unwrap();
                ids.extend(rules.iter().map(|rule| rule["id"].as_str().unwrap().to_owned()));
                if rules.len() < 100 {
                    break;
                }
            }
            for id in ids {
                ask(fake, "DELETE", &format!("{path}/{id}"), Value::Null);
            }
            for (network, _) in wanted.iter() {
                let value = network.address().to_string();
                let rule = json!({
                    "mode": "whitelist", "configuration": { "target": "ip", "value": value },
                });
                ask(fake, "POST", &path, rule);
            }
        }
    }
}

fn ask(fake: &FakeCloudflare, method: &str, path: &str, body: Value) -> Value {
    let answer = fake.answer(&Request::read(method, path, body.to_string().as_bytes()));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let mut told: Value = serde_json::from_str(&answer.body).unwrap();
    told["result"].take()
}

fn fake() -> FakeCloudflare {
    let fake = FakeCloudflare::new(1, Temper::default());
    scene::furnish(&fake);
    fake
}

fn count(fake: &FakeCloudflare) -> usize {
    fake.take_calls().values().sum()
}
