//! The façade for scripts that were written for IPAuth.

use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use postern_controlplane::app::Settings;
use postern_controlplane::domain::{Command as Change, Visit};
use postern_controlplane::http::limit::{Budget, RateLimits};
use postern_controlplane::server::TrustedProxies;
use reqwest::{Method, StatusCode};
use tokio::task::spawn_blocking;

use crate::world::{NewPair, OFFICE, World, generous, problem, within};

fn query(pair: &NewPair) -> String {
    format!("/serverquery/?key={}", pair.server_key.expose())
}

fn whitelist(pair: &NewPair) -> String {
    format!("/whitelist/?key={}", pair.bookmark.expose())
}

/// The published script for ufw, and that for iptables.
const UFW_SCRIPT: &str = r#"#!/bin/sh
SERVER_URL="https://ipauth.net/serverquery/?key=YOUR_SERVER_KEY"
PORT=22

CURIP=$(curl --max-time 5 -fsS "$SERVER_URL" | grep -oE '"ipaddress":"[0-9.]+' | cut -d'"' -f4)
[ -z "$CURIP" ] && exit 0

if ! ufw status | grep -q "$CURIP.*$PORT/tcp"; then
    ufw allow from "$CURIP" to any port "$PORT" proto tcp comment "ipauth"
fi
"#;
const IPTABLES_SCRIPT: &str = r#"#!/bin/sh
SERVER_URL="https://ipauth.net/serverquery/?key=YOUR_SERVER_KEY"
PORT=22
COMMENT="ipauth"

CURIP=$(curl --max-time 5 -fsS "$SERVER_URL" | grep -oE '"ipaddress":"[0-9.]+' | cut -d'"' -f4)
[ -z "$CURIP" ] && exit 0

# Remove any prior ipauth allow rules for this port, then add fresh.
iptables -S INPUT | grep -- "--comment \"$COMMENT\"" | sed 's/^-A /-D /' | while read R; do
    iptables $R 2>/dev/null
done
iptables -I INPUT -p tcp --dport "$PORT" -s "$CURIP" -m comment --comment "$COMMENT" -j ACCEPT
"#;
/// Stands in for the firewall: writes down what it is asked to do.
const FIREWALL: &str = "#!/bin/sh\nprintf '%s\\n' \"$*\" >>\"$ASKED\"\n";

/// Runs a published script with only host and key replaced; answers whether it ended well, and what
/// it asked of the firewall.
async fn run_script(world: &World, script: &str, key: &str) -> (bool, String) {
    let script = script.replace("https://ipauth.net", &format!("http://{}", world.address));
    let script = script.replace("YOUR_SERVER_KEY", key);
    let run = move || {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let install = |name: &str, text: &str| {
            fs::write(path(name), text).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o755)).unwrap();
        };
        install("update.sh", &script);
        install("ufw", FIREWALL);
        install("iptables", FIREWALL);
        let programs = std::env::var("PATH").unwrap();
        let output = Command::new("sh")
            .arg(path("update.sh"))
            .env("PATH", format!("{}:{programs}", folder.path().display()))
            .env("ASKED", path("asked"))
            .env("no_proxy", "*")
            .output()
            .unwrap();
        (output.status.success(), read_if_there(&path("asked")))
    };
    within(spawn_blocking(run)).await.unwrap()
}

/// Reports that a pair is at all of `addresses`.
async fn visit(world: &World, pair: &NewPair, id: u64, addresses: &[&str]) {
    let visit = Visit { id, began: world.engine.now() };
    for address in addresses {
        let address = address.parse().unwrap();
        world
            .order(Change::Report { pair: pair.id, bookmark: pair.bookmark.hash(), address, visit })
            .await;
    }
}

fn read_if_there(path: &Path) -> String {
    if path.exists() { fs::read_to_string(path).unwrap() } else { String::new() }
}

async fn body(world: &World, pair: &NewPair) -> (StatusCode, String) {
    let answer = world.at("203.0.113.1").get(&query(pair)).await;
    (answer.status(), within(answer.text()).await.unwrap())
}

#[tokio::test]
async fn a_server_key_reads_the_ipv4_address_in_the_field_that_scripts_know() {
    let world = World::start();
    let org = world.org("acme").await;
    let pair = world.pair(org, 3_600).await;

    let (status, none) = body(&world, &pair).await;
    assert!(status.is_client_error(), "curl -f must fail: {none}");

    world.report(&pair, "203.0.113.7").await;
    let (status, v4) = body(&world, &pair).await;
    assert_eq!(status, 200);
    assert_eq!(v4, r#"{"status":"success","ipaddress":"203.0.113.7"}"#);

    world.report(&pair, "2600:1700::5").await;
    let (status, v6) = body(&world, &pair).await;
    assert_eq!(status, 200);
    assert_eq!(v6, r#"{"status":"success","ipaddress6":"2600:1700::5"}"#);

    world.clock.advance(Duration::from_secs(3_600));
    let (status, stale) = body(&world, &pair).await;
    assert!(status.is_client_error(), "{stale}");
}

#[tokio::test]
async fn published_scripts_open_for_the_ipv4_address_and_for_nothing_else() {
    // The scripts call without a proxy, and say of nobody that they call for them.
    let world = World::with(Settings { proxies: TrustedProxies::NONE, ..generous() });
    let org = world.org("acme").await;
    let pair = world.pair(org, 3_600).await;
    let unknown = world.pair(world.org("other").await, 3_600).await;
    let key = pair.server_key.expose();

    for ipv6 in [&[][..], &["2600:1700::5"], &["2a02::1"]] {
        visit(&world, &pair, 1, ipv6).await;
        for script in [UFW_SCRIPT, IPTABLES_SCRIPT] {
            let (ended_well, asked) = run_script(&world, script, key).await;
            assert!(ended_well);
            assert_eq!(asked, "", "an IPv6 address must never be cut down to IPv4: {ipv6:?}");
        }
    }
    for addresses in [&["203.0.113.7"][..], &["2600:1700::5", "203.0.113.7"]] {
        visit(&world, &pair, 2, addresses).await;
        assert_eq!(
            run_script(&world, UFW_SCRIPT, key).await,
            (
                true,
                "status\nallow from 203.0.113.7 to any port 22 proto tcp comment ipauth\n".into()
            )
        );
        let rule = "-S INPUT\n-I INPUT -p tcp --dport 22 -s 203.0.113.7 -m comment --comment ipauth -j ACCEPT\n";
        assert_eq!(run_script(&world, IPTABLES_SCRIPT, key).await, (true, rule.into()));
    }
    for wrong in [unknown.server_key.expose(), pair.bookmark.expose(), "nonsense"] {
        assert_eq!(run_script(&world, UFW_SCRIPT, wrong).await, (true, String::new()));
    }
    world.clock.advance(Duration::from_secs(3_600));
    assert_eq!(run_script(&world, UFW_SCRIPT, key).await, (true, String::new()));
}

#[tokio::test]
async fn only_pairs_that_opted_in_report_by_get() {
    let world = World::start();
    let org = world.org("acme").await;
    let (shy, bold) = (world.pair(org, 3_600).await, world.pair_with(org, 3_600, true).await);
    let address = |pair: &NewPair| world.engine.state().pair(pair.id).unwrap().report;

    let refused = world.at(OFFICE).get(&whitelist(&shy)).await;
    assert_eq!(refused.status(), 409);
    let browser = world.at(OFFICE).request(Method::GET, &whitelist(&shy));
    let sent = within(browser.header("accept", "text/html").send()).await.unwrap();
    assert_eq!(sent.status(), 303);
    assert_eq!(sent.headers()["location"], format!("/b/{}", shy.bookmark.expose()).as_str());
    assert_eq!(address(&shy), None);

    assert_eq!(world.at(OFFICE).send(Method::HEAD, &whitelist(&bold)).await.status(), 204);
    let ahead = world.at(OFFICE).request(Method::GET, &whitelist(&bold));
    let ahead = within(ahead.header("sec-purpose", "prefetch").send()).await.unwrap();
    assert_eq!(ahead.status(), 204);
    assert_eq!(address(&bold), None);

    let done = world.at(OFFICE).get(&whitelist(&bold)).await;
    assert_eq!(done.status(), 200);
    assert_eq!(done.headers()["cache-control"], "no-store");
    let text = within(done.text()).await.unwrap();
    assert_eq!(text, format!(r#"{{"status":"success","ipaddress":"{OFFICE}"}}"#));
}

#[tokio::test]
async fn a_pair_that_reports_by_get_is_frozen_like_any_other() {
    let moves = Budget::per_hour(NonZeroU32::MIN);
    let world =
        World::with(Settings { rates: RateLimits { moves, ..generous().rates }, ..generous() });
    let org = world.org("acme").await;
    let pair = world.pair_with(org, 7_200, true).await;
    let report = async |address: &str| world.at(address).get(&whitelist(&pair)).await;
    for address in ["203.0.113.1", "203.0.113.2"] {
        assert_eq!(report(address).await.status(), 200);
    }

    let refused = report("203.0.113.3").await;

    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "3600");
    assert_eq!(problem(refused).await["type"], "moved_too_often");
    assert_eq!(report("203.0.113.2").await.status(), 200, "what is on file is renewed");
}
