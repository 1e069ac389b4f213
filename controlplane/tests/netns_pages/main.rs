//! The bookmark's page in Chromium, over real addresses of both families.
//!
//! Each test has a network namespace of its own: run `make test`.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

#[path = "../netns_feeds/ground.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod ground;
#[path = "../program/plane.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod plane;
#[path = "../api/window.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod window;

use crate::ground::{require, run};
use crate::plane::Plane;
use crate::window::Window;

/// Addresses that Chromium takes for public: from those to others, of documentation too, it asks its
/// user first (Local Network Access). Here they are nobody's.
const IPV4: &str = "203.0.114.1";
const IPV6: &str = "2600::1";

/// One certificate for all names; the browser is told to take it.
const CONFIG: &str = "\
data_dir: data
public_url: https://plane.test:8443
ipv4_url: https://ipv4.plane.test:8443
ipv6_url: https://ipv6.plane.test:8443
listen:
  - address: '[::]:8443'
    tls: { certificate: data/tls.crt, key: data/tls.key }
log:
  format: json
";

#[tokio::test(flavor = "multi_thread")]
async fn one_click_reports_both_families() {
    require();
    run("ip", &["address", "add", &format!("{IPV4}/32"), "dev", "lo"]);
    run("ip", &["address", "add", &format!("{IPV6}/128"), "dev", "lo"]);
    let plane = Plane::with(CONFIG);
    let daemon = plane.start();
    let pair = plane.json(&["pair", "add", "laptop"]);
    plane.json(&["group", "add", "ssh"]);
    plane.json(&["group", "add-member", "ssh", "--pair", "laptop"]);
    let names = format!(
        "--host-resolver-rules=MAP plane.test {IPV4}, MAP ipv4.plane.test {IPV4}, \
         MAP ipv6.plane.test [{IPV6}]"
    );
    let window = Window::open(&[&names, "--ignore-certificate-errors"]).await;

    window.go(pair["bookmark"].as_str().unwrap()).await;
    window.says(IPV4).await;
    window.click("button").await;
    window.says(&format!("Reported: {IPV4} and {IPV6}.")).await;

    let shown = plane.json(&["group", "show", "ssh"]);
    let entries = shown["entries"].as_array().unwrap().iter();
    let cidrs: Vec<&str> = entries.map(|entry| entry["cidr"].as_str().unwrap()).collect();
    assert_eq!(cidrs, [format!("{IPV4}/32"), format!("{IPV6}/128")]);
    assert_eq!(window.complaints().await, Vec::<String>::new());
    drop(daemon);
}
