//! `nft` and `ipset` take their forms as they are served, again and again.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::ground::{Admins, run};

/// Feeds a script to a program.
fn feed(program: &str, arguments: &[&str], script: &str) {
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{program}: {script}");
}

/// A list with both families, an overlap, and an entry that `ipset` cannot count down.
fn admins() -> Admins {
    let admins = Admins::start();
    admins.network("203.0.113.0/24");
    admins.network("2001:db8:1::/48");
    let long = admins.pair("laptop", "60d");
    admins.report(&long, &["203.0.113.7", "2001:db8::7"]);
    let short = admins.pair("phone", "1h");
    admins.report(&short, &["198.51.100.7"]);
    admins
}

/// What `nft` lists of a set: each element, and the seconds until it closes.
fn nft_elements(set: &str) -> Vec<(String, Option<u64>)> {
    let listed = run("nft", &["-j", "list", "set", "inet", "filter", set]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let elements = listed["nftables"][1]["set"]["elem"].as_array().cloned().unwrap_or_default();
    let show = |element: &Value| {
        let value = element.get("elem").map_or(element, |element| &element["val"]);
        let text = match value.get("prefix") {
            Some(prefix) => format!("{}/{}", prefix["addr"].as_str().unwrap(), prefix["len"]),
            None => value.as_str().unwrap().to_owned(),
        };
        (text, element["elem"]["expires"].as_u64())
    };
    elements.iter().map(show).collect()
}

#[test]
fn nft_takes_the_list_whole_and_again_and_counts_it_down() {
    let admins = admins();

    for _ in 0..2 {
        feed("nft", &["-f", "-"], &admins.list("format=nft"));
        let v4 = nft_elements("postern_1_v4");
        let [(phone, Some(left)), (office, None)] = &v4[..] else { panic!("{v4:?}") };
        assert_eq!((phone.as_str(), office.as_str()), ("198.51.100.7", "203.0.113.0/24"));
        assert!((3_500..=3_600).contains(left), "{left}");
        let v6 = nft_elements("postern_1_v6");
        let [(laptop, Some(left)), (site, None)] = &v6[..] else { panic!("{v6:?}") };
        assert_eq!((laptop.as_str(), site.as_str()), ("2001:db8::7", "2001:db8:1::/48"));
        assert!((60 * 86_400 - 100..=60 * 86_400).contains(left), "{left}");
    }

    for member in ["203.0.113.0/24", "2001:db8:1::/48", "laptop"] {
        admins.revoke(member);
    }
    feed("nft", &["-f", "-"], &admins.list("format=nft&family=4"));
    assert_eq!(nft_elements("postern_1_v4").len(), 1);
    assert_eq!(nft_elements("postern_1_v6").len(), 2, "the other family is left as it is");
    admins.revoke("phone");
    feed("nft", &["-f", "-"], &admins.list("format=nft"));
    assert_eq!(nft_elements("postern_1_v4"), []);
    assert_eq!(nft_elements("postern_1_v6"), []);
}

/// What `ipset` lists of a set.
fn ipset_elements(set: &str) -> Vec<String> {
    let listed = run("ipset", &["list", set]);
    let mut elements: Vec<String> =
        listed.split_once("Members:\n").unwrap().1.lines().map(str::to_owned).collect();
    elements.sort();
    elements
}

#[test]
fn ipset_takes_the_list_whole_and_again_and_counts_it_down() {
    let admins = admins();

    for _ in 0..2 {
        feed("ipset", &["restore"], &admins.list("format=ipset"));
        let v4 = ipset_elements("postern_1_v4");
        assert!(v4[0].starts_with("198.51.100.7 timeout 35"), "{v4:?}");
        assert_eq!(v4[1], "203.0.113.0/24 timeout 0");
        assert!(v4[2].starts_with("203.0.113.7 timeout 21474"), "{v4:?}");
        let v6 = ipset_elements("postern_1_v6");
        assert_eq!(v6[0], "2001:db8:1::/48 timeout 0");
        assert!(v6[1].starts_with("2001:db8::7 timeout 21474"), "{v6:?}");
        assert_eq!(run("ipset", &["list", "-name"]), "postern_1_v4\npostern_1_v6\n");
    }
    run("ipset", &["test", "postern_1_v4", "203.0.113.99"]);

    // A script that lost its end leaves the sets as they were.
    let whole = admins.list("format=ipset");
    let cut = whole.split_once("swap").unwrap().0;
    for member in ["203.0.113.0/24", "2001:db8:1::/48", "laptop", "phone"] {
        admins.revoke(member);
    }
    feed("ipset", &["restore"], cut);
    assert_eq!(ipset_elements("postern_1_v4").len(), 3);
    feed("ipset", &["restore"], &admins.list("format=ipset"));
    assert_eq!(ipset_elements("postern_1_v4"), [""; 0]);
    assert_eq!(ipset_elements("postern_1_v6"), [""; 0]);
}
