//! The daemon's life: what it tells the service manager, what signals do, how it ends.

use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, kill_process, prlimit};

use crate::plane::{Daemon, Plane, program};

/// Far beyond what anything here takes.
const HANG: Duration = Duration::from_secs(30);

/// A service manager that listens.
struct Manager {
    _folder: tempfile::TempDir,
    socket: UnixDatagram,
    path: std::path::PathBuf,
}

impl Manager {
    fn listen() -> Manager {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(HANG)).unwrap();
        Manager { _folder: folder, socket, path }
    }

    /// Waits for a message that holds the line.
    fn wait_for(&self, line: &str) {
        let mut buffer = [0; 512];
        loop {
            let length = self.socket.recv(&mut buffer).expect(line);
            let message = std::str::from_utf8(&buffer[..length]).unwrap();
            if message.lines().any(|found| found == line) {
                return;
            }
        }
    }
}

fn signal(daemon: &Daemon, signal: Signal) {
    kill_process(daemon.pid(), signal).unwrap();
}

#[test]
fn the_service_manager_hears_of_every_step() {
    let (plane, manager) = (Plane::make(), Manager::listen());
    let mut command = plane.program(&["serve"]);
    command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "200000");
    let daemon = Daemon::ready(command.stderr(Stdio::piped()).spawn().unwrap());

    manager.wait_for("READY=1");
    manager.wait_for("WATCHDOG=1");
    manager.wait_for("WATCHDOG=1");
    signal(&daemon, Signal::HUP);
    manager.wait_for("RELOADING=1");
    manager.wait_for("READY=1");
    signal(&daemon, Signal::TERM);
    manager.wait_for("STOPPING=1");

    let (code, log) = daemon.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(!plane.data().join("control.sock").exists());
}

#[test]
fn a_bad_file_is_not_taken_over_by_a_reload_and_a_good_one_is() {
    let (plane, manager) = (Plane::make(), Manager::listen());
    let mut command = plane.program(&["serve"]);
    command.env("NOTIFY_SOCKET", &manager.path);
    let daemon = Daemon::ready(command.stderr(Stdio::piped()).spawn().unwrap());
    let good = fs::read_to_string(plane.config()).unwrap();

    fs::write(plane.config(), "log: nonsense\n").unwrap();
    signal(&daemon, Signal::HUP);
    manager.wait_for("RELOADING=1");
    manager.wait_for("READY=1");
    plane.run(&["pair", "list"]);
    fs::write(plane.config(), good.replace("format: json", "format: json\n  level: debug"))
        .unwrap();
    signal(&daemon, Signal::HUP);
    manager.wait_for("RELOADING=1");
    manager.wait_for("READY=1");
    plane.json(&["pair", "list"]);
    signal(&daemon, Signal::TERM);

    let (code, log) = daemon.end();
    assert_eq!(code, Some(0));
    let (before, after) = log.split_once("kept the old configuration").expect(&log);
    assert!(!before.contains("DEBUG") && after.contains("DEBUG"), "{log}");
}

#[test]
fn a_reload_takes_over_what_the_routes_decide_by() {
    let (plane, manager) = (Plane::make(), Manager::listen());
    let mut command = plane.program(&["serve"]);
    command.env("NOTIFY_SOCKET", &manager.path);
    let daemon = Daemon::ready(command.stderr(Stdio::piped()).spawn().unwrap());
    let before = plane.json(&["pair", "add", "before"]);
    let config = fs::read_to_string(plane.config()).unwrap();

    let config = config.replace("http://127.0.0.1:1", "https://plane.example.org\nttl: 30m");
    fs::write(plane.config(), config).unwrap();
    signal(&daemon, Signal::HUP);
    manager.wait_for("RELOADING=1");
    manager.wait_for("READY=1");
    let after = plane.json(&["pair", "add", "after"]);

    let bookmark = |pair: &serde_json::Value| pair["bookmark"].as_str().unwrap().to_owned();
    assert!(bookmark(&before).starts_with("http://127.0.0.1:1/b/pob_"));
    assert!(bookmark(&after).starts_with("https://plane.example.org/b/pob_"));
    assert_eq!((&before["ttl"], &after["ttl"]), (&86_400.into(), &1_800.into()));
}

#[test]
fn the_figures_tell_what_happened_to_whoever_reaches_their_listener() {
    let plane = Plane::make();
    let config = fs::read_to_string(plane.config()).unwrap();
    let config = config.replace("moves_per_hour: 1000000", "moves_per_hour: 1");
    fs::write(plane.config(), config + "metrics: 127.0.0.2:0\n").unwrap();
    let daemon = plane.start();
    let bookmark = plane.json(&["pair", "add", "laptop"])["bookmark"].clone();
    let path = bookmark.as_str().unwrap().replace("http://127.0.0.1:1", "");
    for (last, status) in [(7, 200), (7, 200), (7, 200), (8, 200), (9, 429)] {
        let report = format!(
            "POST {path} HTTP/1.1\r\nHost: plane\r\nX-Forwarded-For: 192.0.2.{last}\r\n\
             Connection: close\r\n\r\n"
        );
        let answer = http(daemon.address, &report);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }

    let figures = scrape(&daemon);

    let value = |series: &str| -> f64 {
        let line = figures.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in {figures}")).parse().unwrap()
    };
    let reports = |outcome| value(&format!("postern_reports_total{{outcome=\"{outcome}\"}}"));
    assert_eq!((reports("moved"), reports("heartbeat"), reports("frozen")), (2.0, 2.0, 1.0));
    let posts = r#"postern_requests_total{route="/b/{bookmark}",method="POST",status="200"}"#;
    assert_eq!(value(posts), 4.0);
    assert!(2.0 <= value("postern_orders_committed_total"), "the pair, and where it is");
    assert!(2.0 <= value("postern_commit_seconds_count"));
    assert!(0.0 < value("postern_store_free_bytes"));
    for line in figures.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(figures.contains(&format!("# HELP {name} ")), "{name} is described");
    }
    let public = http(daemon.address, SCRAPE);
    assert!(public.starts_with("HTTP/1.1 404"), "the world is told no figures: {public}");
    assert!(!figures.contains("pob_"), "{figures}");
}

const SCRAPE: &str = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.2\r\nConnection: close\r\n\r\n";

/// What the listener of the figures tells.
pub(crate) fn scrape(daemon: &Daemon) -> String {
    http(daemon.metrics.unwrap(), SCRAPE)
}

fn http(server: std::net::SocketAddr, request: &str) -> String {
    let mut stream = std::net::TcpStream::connect(server).unwrap();
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_store_that_fails_ends_the_daemon_with_its_own_code() {
    let plane = Plane::make();
    // The limit on file sizes makes writes fail, as a broken disk would; its signal is ignored.
    let serve = plane.program(&["serve"]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]).arg(serve.get_program());
    shell.args(serve.get_args()).env_remove("NOTIFY_SOCKET").stderr(Stdio::piped());
    let daemon = Daemon::ready(shell.spawn().unwrap());
    let nothing = Rlimit { current: Some(0), maximum: Some(0) };
    prlimit(Some(daemon.pid()), Resource::Fsize, nothing).unwrap();

    let output = plane.run(&["pair", "add", "laptop"]);

    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    let (code, log) = daemon.end();
    assert_eq!(code, Some(5), "{log}");
    assert!(plane.json(&["pair", "list"]).as_array().unwrap().is_empty());
    drop(plane.start());
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    let plane = Plane::make();
    let first = plane.start();

    let mut second = plane.spawn();

    let mut log = String::new();
    second.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(1));
    assert!(log.contains("another process uses it"), "{log}");
    assert!(!plane.json(&["key", "list"]).as_array().unwrap().is_empty());
    drop(first);
    let nowhere = program(&["serve", "--config", "/nowhere.yaml"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("/nowhere.yaml"));
}
