//! `examples/noc/postern-feed`: a plain file that is the list, whatever becomes of the plane.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::{Duration, Instant};

use crate::ground::{Admins, Host, answering, eventually, require, run};

#[test]
fn the_file_is_the_list_and_is_replaced_as_a_whole() {
    let admins = Admins::start();
    let laptop = admins.pair("laptop", "1h");
    admins.network("198.51.100.0/24");
    admins.report(&laptop, &["203.0.113.7", "2001:db8::7"]);
    let host = admins.host();
    fs::write(
        host.config("failsafe"),
        "# the office\n192.0.2.0/28\n\n2001:db8:f::/64 # its other\n",
    )
    .unwrap();
    let told = host.state("commands");
    let command =
        format!("sh -c 'echo told >>{}; cp \"$1\" {}-list' sh", told.display(), told.display());
    fs::write(host.config("tell"), format!("#!/bin/sh\n{command} \"$1\"\n")).unwrap();
    fs::set_permissions(host.config("tell"), fs::Permissions::from_mode(0o700)).unwrap();
    host.set(&format!("command={}", host.config("tell").display()));

    host.run();

    let office = ["192.0.2.0/28", "2001:db8:f::/64"];
    let both = ["198.51.100.0/24", "203.0.113.7", "2001:db8::7"];
    assert_eq!(host.list(), [&office[..], &both].concat());
    let first = fs::metadata(host.state("list")).unwrap();
    assert_eq!(first.permissions().mode() & 0o777, 0o644);
    assert_eq!(fs::metadata(host.state("saved")).unwrap().permissions().mode() & 0o777, 0o600);

    host.run();
    assert_eq!(fs::metadata(host.state("list")).unwrap().ino(), first.ino(), "nothing changed");
    assert_eq!(fs::read_to_string(&told).unwrap(), "told\n");

    admins.report(&laptop, &["203.0.113.8"]);
    host.run();
    assert_eq!(host.list(), [&office[..], &["198.51.100.0/24", "203.0.113.8"]].concat());
    assert_ne!(fs::metadata(host.state("list")).unwrap().ino(), first.ino());
    admins.revoke("198.51.100.0/24");
    admins.revoke("laptop");
    host.run();
    assert_eq!(host.list(), office, "an empty list leaves what is always allowed");
    assert_eq!(fs::read_to_string(&told).unwrap(), "told\n".repeat(3));
    assert_eq!(
        fs::read_to_string(told.with_file_name("commands-list")).unwrap().lines().count(),
        2
    );
}

#[test]
fn a_run_waits_at_the_plane_for_the_next_change() {
    let admins = Admins::start();
    let laptop = admins.pair("laptop", "1h");
    let host = admins.host();
    host.run();
    host.set("wait_secs=25");
    let started = Instant::now();
    let mut waiting = host.command().spawn().unwrap();

    admins.report(&laptop, &["203.0.113.7"]);

    assert!(waiting.wait().unwrap().success());
    assert!(started.elapsed() < Duration::from_secs(20), "the change should have ended the wait");
    assert_eq!(host.list(), ["203.0.113.7"]);
}

#[test]
fn an_outage_keeps_the_list_until_its_deadlines_and_what_has_none_for_the_time_set() {
    let mut admins = Admins::start();
    let (short, long) = (admins.pair("short", "4s"), admins.pair("long", "1h"));
    admins.network("198.51.100.0/24");
    let host = admins.host();
    admins.report(&long, &["2001:db8::7"]);
    let reported = Instant::now();
    admins.report(&short, &["203.0.113.7"]);
    host.run();

    admins.kill();

    let said = host.fail();
    assert!(said.contains("kept until its deadlines"), "{said}");
    assert_eq!(host.list(), ["198.51.100.0/24", "203.0.113.7", "2001:db8::7"]);
    eventually("the short one should have ended", || {
        host.fail();
        host.list() == ["198.51.100.0/24", "2001:db8::7"]
    });
    let took = reported.elapsed();
    assert!((3_990..8_000).contains(&took.as_millis()), "{took:?}");

    host.set("hold_secs=0");
    host.fail();
    assert_eq!(host.list(), ["2001:db8::7"], "nobody has confirmed the network for that long");
}

#[test]
fn nothing_is_written_before_the_first_list() {
    let mut admins = Admins::start();
    admins.kill();
    let host = admins.host();
    fs::write(host.config("failsafe"), "192.0.2.0/28\n").unwrap();

    host.fail();

    assert!(!host.state("list").exists());
}

/// An answer with the header fields of a list.
fn list(entries: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\netag: \"x\"\r\n\
         postern-as-of: 2026-01-01T00:00:00Z\r\npostern-entries: {entries}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[test]
fn an_answer_that_is_not_a_whole_list_changes_nothing() {
    require();
    const HEAD: &str = "cidr,family,expires_at\n";
    let good = list(
        "2",
        &format!("{HEAD}203.0.113.7/32,4,never\n2001:db8::/48,6,2126-01-01T00:00:00.5Z\n"),
    );
    let cut = good[..good.len() - 4].to_vec();
    // Without a length, only the number of entries tells that the last one is missing.
    let unmeasured =
        String::from_utf8(list("2", &format!("{HEAD}203.0.113.9/32,4,never\n"))).unwrap();
    let unmeasured = unmeasured.lines().filter(|line| !line.starts_with("content-length"));
    let unmeasured: Vec<&str> = unmeasured.collect();
    let unmeasured = unmeasured.join("\r\n") + "\r\n";
    let mut bad = vec![
        cut,
        unmeasured.into_bytes(),
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_vec(),
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
        b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec(),
        list("0", ""),
        list("0", "<html>please sign in</html>\n"),
        list("0", &format!("{HEAD}203.0.113.9/32,4,never\n")),
        list("", HEAD),
        list("1", &format!("{HEAD}203.0.113.9/32,4,never")),
    ];
    for line in [
        "203.0.113.9,4,never",
        "203.0.113.9/33,4,never",
        "203.0.113.256/32,4,never",
        "203.0.113/32,4,never",
        "203.0.113.9/32,6,never",
        "2001:db8::9/128,4,never",
        "2001:db8::9/129,6,never",
        "203.0.113.9/32,4,",
        "203.0.113.9/32,4",
        "203.0.113.9/32,4,tomorrow",
        "$(reboot)/32,4,never",
        "203.0.113.9;reboot/32,4,never",
    ] {
        bad.push(list("1", &format!("{HEAD}{line}\n")));
    }
    let host = Host::following(&answering(good), "pok_x");
    host.run();
    let before = ["203.0.113.7", "2001:db8::/48"];
    assert_eq!(host.list(), before);

    for answer in bad {
        let shown = String::from_utf8_lossy(&answer).into_owned();
        let other = Host::following(&answering(answer), "pok_x");
        fs::copy(other.config("feed.curl"), host.config("feed.curl")).unwrap();

        let said = host.fail();

        assert!(said.contains("kept until its deadlines"), "{shown}: {said}");
        assert_eq!(host.list(), before, "{shown}");
    }
}

#[test]
fn a_list_beyond_the_limits_of_the_host_withdraws_but_opens_nothing() {
    let admins = Admins::start();
    admins.network("198.51.100.0/24");
    admins.network("203.0.113.0/24");
    let host = admins.host();
    host.run();

    admins.network("11.0.0.0/8");
    admins.network("192.0.2.0/24");
    admins.revoke("203.0.113.0/24");

    let said = host.fail();
    assert!(said.contains("11.0.0.0/8 is wider than /24"), "{said}");
    assert_eq!(host.list(), ["198.51.100.0/24"]);
    host.set("entries_max=2 widest_v4=8");
    let said = host.fail();
    assert!(said.contains("3 entries are more than 2"), "{said}");
    assert_eq!(host.list(), ["198.51.100.0/24"]);
    host.set("widest_v4=8");
    host.run();
    assert_eq!(host.list(), ["11.0.0.0/8", "192.0.2.0/24", "198.51.100.0/24"]);
}

#[test]
fn a_clock_that_is_wrong_lengthens_no_deadline() {
    require();
    const BODY: &str = "cidr,family,expires_at\n203.0.113.7/32,4,2026-01-01T00:00:03Z\n";
    // To this host's clock the deadline is long past; to a host whose clock is late it would be far
    // away, and three seconds are left all the same.
    let past = Host::following(&answering(list("1", BODY)), "pok_x");
    let far = BODY.replace("2026", "2126");
    let ahead = String::from_utf8(list("1", &far)).unwrap().replace("as-of: 2026", "as-of: 2126");
    let ahead = Host::following(&answering(ahead.into_bytes()), "pok_x");

    past.run();
    let started = Instant::now();
    ahead.run();

    assert_eq!(past.list(), [""; 0]);
    assert_eq!(ahead.list(), ["203.0.113.7"]);
    let gone = Host::following("http://127.0.0.1:1/", "pok_x");
    fs::copy(gone.config("feed.curl"), ahead.config("feed.curl")).unwrap();
    eventually("three seconds should be over", || {
        ahead.fail();
        ahead.list().is_empty()
    });
    assert!(started.elapsed() < Duration::from_secs(6));
}

#[test]
fn the_key_is_on_no_command_line_and_in_no_file_of_others() {
    let admins = Admins::start();
    let host = admins.host();
    let tools = tempfile::tempdir().unwrap();
    let seen = tools.path().join("seen");
    let spy = tools.path().join("curl");
    let curl = run("sh", &["-c", "command -v curl"]);
    let spying =
        format!("#!/bin/sh\necho \"$*\" >>{}\nexec {} \"$@\"\n", seen.display(), curl.trim());
    fs::write(&spy, spying).unwrap();
    fs::set_permissions(&spy, fs::Permissions::from_mode(0o700)).unwrap();
    let path = format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap());

    assert!(host.command().env("PATH", path).status().unwrap().success());

    let seen = fs::read_to_string(seen).unwrap();
    assert!(seen.contains("--config") && !seen.contains(&admins.key), "{seen}");
    for file in ["list", "saved"] {
        assert!(!fs::read_to_string(host.state(file)).unwrap().contains("pok_"));
    }

    fs::set_permissions(host.config("feed.curl"), fs::Permissions::from_mode(0o640)).unwrap();
    let said = host.fail();
    assert!(said.contains("chmod 600"), "{said}");
}
