//! Cloudflare's own client, in Python, reads from the fake what was wanted of the agent: so the fake
//! speaks as the published schema says, and the agent as the fake.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use postern_agent::target::cloudflare::Cloudflare;
use postern_shared::allowlist::Allowlist;
use postern_shared::network::Network;
use postern_shared::time::Expiry;

use crate::fake::{FakeCloudflare, Temper};
use crate::scene::{self, ACCOUNT, Clock, LIST, OWNER, Provider, ZONE};
use crate::server::{self, TOKEN};
use crate::transport::{self, Hostility};

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python/bin/python");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cloudflare/witness.py");
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_reads_what_was_wanted() {
    for kind in Provider::ALL {
        let fake =
            FakeCloudflare::new(1, Temper { working_max: Duration::ZERO, ..Temper::default() });
        scene::furnish(&fake);
        scene::meddle(kind, &fake, "203.0.113.1/32".parse().unwrap(), "office");
        let base = server::serve(&fake).await;
        let clock = Clock::start();
        let wanted = wanted(kind, clock);
        let calls = Cloudflare::CALLS_PER_MINUTE_MAX;
        let (cloudflare, _) = transport::client(&fake, 1, Hostility::NONE, calls);

        scene::start(kind, cloudflare).pass(&wanted, clock).await.unwrap();
        let read = read(kind, &base);

        let mark =
            |expiry: Expiry| format!("postern {OWNER} 07070707={}", expiry.deadline().unwrap());
        let mut expected: BTreeMap<Network, String> =
            wanted.iter().map(|(network, expiry)| (network, mark(expiry))).collect();
        expected.insert("203.0.113.1/32".parse().unwrap(), "office".to_owned());
        assert_eq!(read, expected, "{kind:?}");
    }
}

/// More than two of the client's pages.
fn wanted(kind: Provider, clock: Clock) -> Allowlist {
    let hosts = (0..60).map(|last| format!("198.51.100.{last}/32"));
    let v6 = match kind {
        Provider::List => "2001:db8::/64",
        Provider::AccountRules | Provider::ZoneRules => "2001:db8::7/128",
    };
    let networks: Vec<String> =
        hosts.chain(["198.51.101.0/24".to_owned(), v6.to_owned()]).collect();
    let networks: Vec<&str> = networks.iter().map(String::as_str).collect();
    scene::wanted(clock, &networks, HOUR)
}

/// Blocks: the fake answers on other threads.
fn read(kind: Provider, base: &str) -> BTreeMap<Network, String> {
    let of: &[&str] = match kind {
        Provider::List => &["list", ACCOUNT, LIST],
        Provider::AccountRules => &["account", ACCOUNT],
        Provider::ZoneRules => &["zone", ZONE],
    };
    let output = Command::new(PYTHON)
        .args([SCRIPT, base, TOKEN])
        .args(of)
        .output()
        .expect("Python is there: run `make test`, which installs what is missing");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let mut read = BTreeMap::new();
    for line in lines.lines() {
        let [ip, mode, text] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert!(["item", "whitelist"].contains(&mode), "{line}");
        let twice = read.insert(ip.parse().unwrap(), text.to_owned());
        assert_eq!(twice, None, "{line}");
    }
    read
}
