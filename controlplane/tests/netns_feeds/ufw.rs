//! `examples/ufw/postern-ufw`: rules of the real ufw, with a configuration of the test's own.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::ground::{Admins, Host, eventually, require, run, script};

/// Says that the folders of ufw are the test's own.
const PRIVATE: &str = "POSTERN_TEST_UFW";
/// What ufw knows and where it locks, made anew from what its package brings for that.
const FURNISH: &str = r#"
    mount -t tmpfs tmpfs /etc/ufw && mount -t tmpfs tmpfs /run || exit
    cp /usr/share/ufw/iptables/*.rules /usr/share/ufw/ufw.conf /usr/share/ufw/*.init /etc/ufw/
    mkdir /etc/ufw/applications.d && touch /etc/ufw/sysctl.conf
    exec "$1" --exact "$2" --nocapture
"#;

/// Runs the body of the test `name` where ufw has nothing but its defaults and is switched on: by
/// starting this program again, in a mount namespace of its own, for this one test.
fn with_ufw(name: &str, body: fn()) {
    require();
    if std::env::var_os(PRIVATE).is_some() {
        run("ufw", &["--force", "enable"]);
        return body();
    }
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", FURNISH, "sh"])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(PRIVATE, "1")
        .output()
        .unwrap();
    let (out, err) = (&output.stdout, &output.stderr);
    let text = [String::from_utf8_lossy(out), String::from_utf8_lossy(err)].concat();
    assert!(output.status.success(), "{name} failed; run `make test`:\n{text}");
}

/// A host with ufw that follows the group for its SSH port.
fn host(admins: &Admins) -> Host {
    let host = admins.host();
    let command = script("ufw/postern-ufw");
    host.set(&format!("always=yes command='{} admins 22/tcp'", command.display()));
    host
}

/// Who may reach which ports by ufw's rules, as the kernel has it.
fn kernel() -> Vec<String> {
    let mut rules = Vec::new();
    for (save, chain) in
        [("iptables-save", "ufw-user-input"), ("ip6tables-save", "ufw6-user-input")]
    {
        for line in run(save, &["-t", "filter"]).lines() {
            let Some(rule) = line.strip_prefix(&format!("-A {chain} -s ")) else { continue };
            let address = rule.split(' ').next().unwrap();
            let port = rule.split_once("--dport ").unwrap().1.split(' ').next().unwrap();
            rules.push(format!("{address} {port} {}", rule.rsplit(' ').next().unwrap()));
        }
    }
    rules.sort();
    rules
}

#[test]
fn rules_follow_the_list_in_both_families_and_no_other_rule_is_touched() {
    with_ufw("ufw::rules_follow_the_list_in_both_families_and_no_other_rule_is_touched", || {
        let admins = Admins::start();
        let laptop = admins.pair("laptop", "1h");
        admins.network("198.51.100.0/24");
        admins.network("203.0.113.66/32");
        admins.report(&laptop, &["203.0.113.7", "2001:db8::7"]);
        let host = host(&admins);
        std::fs::write(host.config("failsafe"), "192.0.2.0/28\n2001:0db8:F::/64\n").unwrap();
        // The operator's own: one that only looks like ours, and one that says no to a member.
        run("ufw", &["allow", "from", "203.0.113.7", "to", "any", "port", "80", "proto", "tcp"]);
        let deny = ["deny", "from", "203.0.113.66", "to", "any", "port", "22", "proto", "tcp"];
        run("ufw", &[&deny[..], &["comment", "postern"]].concat());
        let own = ["203.0.113.66/32 22 DROP", "203.0.113.7/32 80 ACCEPT"];
        let safe = ["192.0.2.0/28 22 ACCEPT", "2001:db8:f::/64 22 ACCEPT"];
        let expect = |ours: &[&str]| {
            let mut expected = [&own[..], &safe, ours].concat();
            expected.sort_unstable();
            assert_eq!(kernel(), expected);
        };

        host.run();
        let at_home =
            ["198.51.100.0/24 22 ACCEPT", "2001:db8::7/128 22 ACCEPT", "203.0.113.7/32 22 ACCEPT"];
        expect(&at_home);
        host.run();
        expect(&at_home);

        // It moves: the old addresses close, which the published scripts never did.
        admins.report(&laptop, &["2001:db8:1::9"]);
        host.run();
        expect(&["198.51.100.0/24 22 ACCEPT", "2001:db8:1::9/128 22 ACCEPT"]);

        // Somebody else's hand on our rules is undone.
        run(
            "ufw",
            &[
                "delete",
                "allow",
                "from",
                "198.51.100.0/24",
                "to",
                "any",
                "port",
                "22",
                "proto",
                "tcp",
            ],
        );
        let stray = ["allow", "from", "8.8.8.8", "to", "any", "port", "23", "proto", "tcp"];
        run("ufw", &[&stray[..], &["comment", "postern admins"]].concat());
        host.run();
        expect(&["198.51.100.0/24 22 ACCEPT", "2001:db8:1::9/128 22 ACCEPT"]);

        admins.revoke("laptop");
        admins.revoke("198.51.100.0/24");
        admins.revoke("203.0.113.66/32");
        host.run();
        expect(&[]);
    });
}

#[test]
fn an_outage_keeps_the_rules_until_their_deadlines() {
    with_ufw("ufw::an_outage_keeps_the_rules_until_their_deadlines", || {
        let mut admins = Admins::start();
        let (short, long) = (admins.pair("short", "12s"), admins.pair("long", "1h"));
        let host = host(&admins);
        admins.report(&long, &["203.0.113.7"]);
        let reported = Instant::now();
        admins.report(&short, &["2001:db8::7"]);
        host.run();

        admins.kill();
        host.fail();
        assert!(reported.elapsed().as_secs() < 11, "the machine is too slow for this test");
        assert_eq!(kernel(), ["2001:db8::7/128 22 ACCEPT", "203.0.113.7/32 22 ACCEPT"]);

        eventually("the short one should have ended", || {
            host.fail();
            kernel() == ["203.0.113.7/32 22 ACCEPT"]
        });
        let took = reported.elapsed();
        assert!((11_990..20_000).contains(&took.as_millis()), "{took:?}");
    });
}

#[test]
fn a_list_that_cannot_be_read_changes_no_rule() {
    with_ufw("ufw::a_list_that_cannot_be_read_changes_no_rule", || {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list");
        let apply = |list: &Path| {
            let mut command = Command::new(script("ufw/postern-ufw"));
            command.args(["admins", "22/tcp"]).arg(list).output().unwrap().status.success()
        };
        std::fs::write(&list, "203.0.113.7\n").unwrap();
        assert!(apply(&list));

        for text in ["203.0.113.8\n203.0.113.\n", "--force reset\n", "203.0.113.8 any\n"] {
            std::fs::write(&list, text).unwrap();
            assert!(!apply(&list), "{text}");
            assert_eq!(kernel(), ["203.0.113.7/32 22 ACCEPT"], "{text}");
        }
        assert!(!apply(&folder.path().join("missing")));
        assert_eq!(kernel(), ["203.0.113.7/32 22 ACCEPT"]);
    });
}
