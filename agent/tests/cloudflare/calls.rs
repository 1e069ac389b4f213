//! What changes cost in calls, beside what they cost who replaces the whole list each time.

use std::time::Duration;

use postern_agent::target::TargetError;
use postern_agent::target::cloudflare::Cloudflare;
use postern_shared::allowlist::Allowlist;
use postern_shared::network::Network;
use postern_shared::time::Expiry;
use serde_json::{Value, json};

use crate::fake::{FakeCloudflare, Request, Temper};
use crate::scene::{self, ACCOUNT, Clock, Kept, LIST, Provider};
use crate::transport::{self, Hostility};

const DAY: Duration = Duration::from_secs(86_400);
const MINUTE: Duration = Duration::from_secs(60);

/// The rows of README's table: 1 address in, 1 out, 100 at once, an hour in which nothing happens.
#[tokio::test(start_paused = true)]
async fn calls_are_as_few_as_the_readme_says() {
    assert_eq!(ours(Provider::List).await, [3, 3, 3, 60], "a list");
    assert_eq!(ours(Provider::AccountRules).await, [1, 1, 102, 120], "access rules");
    assert_eq!(replaced(Provider::List).await, [2, 2, 2, 120], "a list, replaced");
    assert_eq!(replaced(Provider::AccountRules).await, [42, 42, 141, 14_520], "rules, replaced");
}

async fn ours(kind: Provider) -> [usize; 4] {
    let (fake, mut wanted, clock) = world();
    let calls = Cloudflare::CALLS_PER_MINUTE_MAX;
    let (cloudflare, _) = transport::client(&fake, 1, Hostility::NONE, calls);
    let mut target = scene::start(kind, cloudflare);
    target.pass(&wanted, clock).await.unwrap();
    let until = Expiry::At(clock.now().saturating_add(DAY));
    tokio::time::sleep(MINUTE).await;
    target.pass(&wanted, clock).await.unwrap();
    // As between two readings.
    tokio::time::sleep(MINUTE / 2).await;
    fake.take_calls();

    wanted.set(host(100), until);
    target.pass(&wanted, clock).await.unwrap();
    let one_in = count(&fake);
    tokio::time::sleep(MINUTE / 12).await;
    wanted.remove(host(100));
    target.pass(&wanted, clock).await.unwrap();
    let one_out = count(&fake);
    tokio::time::sleep(MINUTE).await;
    target.pass(&wanted, clock).await.unwrap();
    tokio::time::sleep(MINUTE / 2).await;
    fake.take_calls();
    for n in 101..201 {
        wanted.set(host(n), until);
    }
    settle(&mut target, &wanted, clock).await;
    let hundred_in = count(&fake);
    for _ in 0..60 {
        tokio::time::sleep(MINUTE).await;
        target.pass(&wanted, clock).await.unwrap();
    }
    [one_in, one_out, hundred_in, count(&fake)]
}

/// Passes until all of it is there: a budget, and a time for each write, hold many calls up.
async fn settle(target: &mut Kept, wanted: &Allowlist, clock: Clock) {
    while let Err(error) = target.pass(wanted, clock).await {
        let TargetError::Throttled { wait } = error else { panic!("{error}") };
        tokio::time::sleep(wait).await;
    }
}

/// The same for a program that knows no difference. A list can be replaced by one call, and a look at
/// what became of it, with everything in it that others have put there. Rules are read, all taken away
/// and all added. Every minute, since it cannot know whether that is still needed.
async fn replaced(kind: Provider) -> [usize; 4] {
    let (fake, mut wanted, clock) = world();
    fake.state().temper.calls_max = usize::MAX;
    replace(kind, &fake, &wanted).await;
    let until = Expiry::At(clock.now().saturating_add(DAY));
    fake.take_calls();

    wanted.set(host(100), until);
    replace(kind, &fake, &wanted).await;
    let one_in = count(&fake);
    wanted.remove(host(100));
    replace(kind, &fake, &wanted).await;
    let one_out = count(&fake);
    for n in 101..201 {
        wanted.set(host(n), until);
    }
    replace(kind, &fake, &wanted).await;
    let hundred_in = count(&fake);
    for _ in 0..60 {
        tokio::time::sleep(MINUTE).await;
        replace(kind, &fake, &wanted).await;
    }
    [one_in, one_out, hundred_in, count(&fake)]
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

/// Twenty addresses are in force, or will be at once.
fn world() -> (FakeCloudflare, Allowlist, Clock) {
    let fake = FakeCloudflare::new(1, Temper::default());
    scene::furnish(&fake);
    let clock = Clock::start();
    let until = Expiry::At(clock.now().saturating_add(DAY));
    (fake, (0..20).map(|n| (host(n), until)).collect(), clock)
}

fn host(n: u8) -> Network {
    Network::host([198, 51, 100, n].into())
}

fn count(fake: &FakeCloudflare) -> usize {
    fake.take_calls().values().sum()
}
