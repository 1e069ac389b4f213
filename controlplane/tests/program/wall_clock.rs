//! A wall clock that is moved while the daemon runs, and between two runs of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use postern_shared::time::Timestamp;
use serde_json::Value;

use crate::life::scrape;
use crate::plane::{Daemon, Plane};

/// Far beyond what anything here takes: the figures are renewed four times a minute.
const HANG: Duration = Duration::from_secs(60);
const HOUR: u64 = 3_600;

/// A wall clock that a file moves, for whoever asks the C library for it. Debian's package
/// libfaketime does that, and touches no other clock.
struct WallClock {
    plane: Plane,
    path: PathBuf,
}

impl WallClock {
    fn of(plane: Plane) -> WallClock {
        let path = plane.config().with_file_name("wall_clock");
        let wall = WallClock { plane, path };
        wall.moves("+0");
        wall
    }

    /// Moves it to `offset` from the right time, such as `+1d`.
    fn moves(&self, offset: &str) {
        let new = self.path.with_extension("new");
        fs::write(&new, offset).unwrap();
        fs::rename(new, &self.path).unwrap();
    }

    /// Starts the daemon under this clock.
    fn start(&self) -> Daemon {
        sweep();
        let mut serve = self.plane.program(&["serve"]);
        serve
            .env("LD_PRELOAD", "/usr/$LIB/faketime/libfaketimeMT.so.1")
            .env("FAKETIME_TIMESTAMP_FILE", &self.path)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Daemon::ready(serve.stderr(Stdio::piped()).spawn().unwrap())
    }

    /// The plane's time, and when each entry of the group closes.
    fn list(&self) -> (Timestamp, Vec<(String, Timestamp)>) {
        let shown = self.plane.json(&["group", "show", "ssh"]);
        let time = |value: &Value| value.as_str().unwrap().parse().unwrap();
        let entries = shown["entries"].as_array().unwrap().iter();
        let entries = entries
            .map(|entry| (entry["cidr"].as_str().unwrap().to_owned(), time(&entry["expires_at"])));
        (time(&shown["as_of"]), entries.collect())
    }

    fn lets_in(&self, network: &str, seconds: u64) {
        let expires = format!("{seconds}s");
        let member = ["--network", network, "--note", "office", "--expires", &expires];
        self.plane.json(&[&["group", "add-member", "ssh"][..], &member].concat());
    }
}

/// Takes away what libfaketime has left in shared memory of processes that were killed: a new one
/// that gets the number of such a process would not start.
fn sweep() {
    for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let prefixes = ["faketime_shm_", "sem.faketime_sem_"];
        let number = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix));
        if number.is_some_and(|number| !Path::new("/proc").join(number).exists()) {
            // Another test may have been first.
            drop(fs::remove_file(entry.path()));
        }
    }
}

/// Waits until the figures say that the wall clock is off by `seconds`.
fn shows_skew(daemon: &Daemon, seconds: f64) {
    let until = Instant::now() + HANG;
    loop {
        let figures = scrape(daemon);
        let mut lines = figures.lines();
        let skew = lines.find_map(|line| line.strip_prefix("postern_clock_skew_seconds "));
        let skew: Option<f64> = skew.map(|skew| skew.parse().unwrap());
        if skew.is_some_and(|skew| (skew - seconds).abs() < 5.0) {
            return;
        }
        assert!(Instant::now() < until, "the clock is off by {seconds} s, and told is {skew:?}");
    }
}

#[test]
fn a_wall_clock_that_is_moved_moves_no_deadline_and_is_told() {
    let plane = Plane::make();
    let config = fs::read_to_string(plane.config()).unwrap();
    fs::write(plane.config(), config + "metrics: 127.0.0.2:0\n").unwrap();
    let wall = WallClock::of(plane);
    let daemon = wall.start();
    wall.plane.json(&["group", "add", "ssh"]);
    wall.lets_in("192.0.2.1/32", HOUR);
    let (before, entries) = wall.list();

    for (offset, seconds) in [("+1d", 86_400.0), ("-2d", -172_800.0)] {
        wall.moves(offset);
        shows_skew(&daemon, seconds);

        let (now, still) = wall.list();
        assert_eq!(still, entries, "{offset}");
        assert!(before <= now && now.since(before) < HANG * 2, "{offset}: it is {now}");
    }
    wall.lets_in("192.0.2.2/32", HOUR);
    let (now, entries) = wall.list();
    let left = entries[1].1.since(now);
    assert!((HOUR - 60..=HOUR).contains(&left.as_secs()), "an hour was asked for, {left:?} given");
}

#[test]
fn a_start_under_a_clock_that_was_set_back_revives_nothing() {
    let wall = WallClock::of(Plane::make());
    let daemon = wall.start();
    wall.plane.json(&["group", "add", "ssh"]);
    wall.lets_in("192.0.2.1/32", 1);
    wall.lets_in("192.0.2.2/32", HOUR);
    let until = Instant::now() + HANG;
    let (closed, left) = loop {
        let (now, entries) = wall.list();
        if entries.len() == 1 {
            break (now, entries);
        }
        assert!(Instant::now() < until, "it does not close");
    };
    // What is durable last is what the next start knows the time by.
    wall.lets_in("192.0.2.3/32", HOUR);
    daemon.kill();

    wall.moves("-1d");
    let _daemon = wall.start();

    let (now, entries) = wall.list();
    assert!(closed <= now, "it was {closed}, and is {now}");
    assert_eq!((entries.len(), &entries[0]), (2, &left[0]));
}
