//! Proves what every test in a `netns*` binary relies on: a network and a firewall of its own.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::fs;
use std::process::Command;

#[test]
fn a_kernel_test_sees_no_network_but_its_own() {
    let devices = fs::read_to_string("/proc/self/net/dev").unwrap();
    let names: Vec<&str> =
        devices.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim).collect();

    assert_eq!(names, ["lo"], "not in a network namespace of its own; run `make test`");
}

#[test]
fn a_kernel_test_starts_with_an_empty_firewall_that_it_may_change() {
    let devices = fs::read_to_string("/proc/self/net/dev").unwrap();
    assert_eq!(devices.lines().count(), 3, "not in a network namespace of its own");

    assert_eq!(nft(&["list", "ruleset"]), "");
    nft(&["add", "table", "inet", "isolation"]);

    assert_eq!(nft(&["list", "tables"]), "table inet isolation\n");
}

fn nft(arguments: &[&str]) -> String {
    let output = Command::new("nft").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
