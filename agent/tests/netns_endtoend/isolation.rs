//! Many targets of one agent: one that hangs delays no other, and all of them share one stream.

use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use postern_controlplane::metrics::Metrics;
use postern_controlplane::server::{Limits, Listener, Server, TrustedProxies};
use postern_shared::time::Expiry;

use crate::netns::{Lab, run};
use crate::rig::clients::Clients;
use crate::rig::host::Host;
use crate::rig::plane::Plane;
use crate::rig::{World, eventually};

/// A provider that takes every question and answers none; counts them.
fn silent(address: SocketAddr) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let (listener, count) = (TcpListener::bind(address).unwrap(), Arc::clone(&asked));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, count) = (stream.unwrap(), Arc::clone(&count));
            std::thread::spawn(move || {
                let mut asked = [0; 1];
                if stream.read(&mut asked).is_ok_and(|read| 0 < read) {
                    count.fetch_add(1, Ordering::SeqCst);
                }
                // Until the other side has had enough.
                drop(std::io::copy(&mut stream, &mut std::io::sink()));
            });
        }
    });
    asked
}

/// The processes that noted their ids in a file.
fn noted(pids: &Path) -> Vec<String> {
    let text = fs::read_to_string(pids).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_target_that_hangs_delays_no_other() {
    let world = World::new();
    let provider: SocketAddr = "127.0.0.1:5000".parse().unwrap();
    let asked = silent(provider);
    let (pids, token) = (world.host.file("pids"), world.host.file("token"));
    fs::write(&token, "secret\n").unwrap();
    run("chmod", &["600", token.to_str().unwrap()]);
    let id = "0123456789abcdef0123456789abcdef";
    world.host.add_targets(
        "commands: here",
        &format!(
            "  - name: never-ends\n    type: file\n    path: {}\n    format: text\n    groups: [web]\n\
             \x20   reload: [/bin/sh, -c, 'echo $$ >>{}; exec sleep 1000']\n    reload_timeout: 30s\n\
             \x20 - name: never-answers\n    type: cloudflare_list\n    account_id: {id}\n\
             \x20   list_id: {id}\n    endpoint: http://{provider}\n    token_file: {}\n\
             \x20   groups: [web]\n",
            world.host.file("list").display(),
            pids.display(),
            token.display(),
        ),
    );
    let _agent = world.start();
    eventually("both of them hang", || {
        !noted(&pids).is_empty() && 0 < asked.load(Ordering::SeqCst)
    });
    let hung = noted(&pids).pop().unwrap();

    world.plane.add_network(world.org, world.group, "10.0.0.1", Expiry::Never);
    let took = world.opens("10.0.0.1");

    // It opened while the very command that hung before still did, and not after it was killed.
    assert!(Path::new(&format!("/proc/{hung}")).exists(), "opened only after {took:?}");
    assert_eq!(noted(&pids).pop(), Some(hung));
    let status = world.host.status();
    let state = |name: &str| {
        let targets = status["targets"].as_array().unwrap();
        targets.iter().find(|target| target["name"] == name).unwrap()["state"].clone()
    };
    assert_eq!(state("fw"), "in_sync");
    assert_ne!(state("never-ends"), "in_sync");
    assert_ne!(state("never-answers"), "in_sync");
}

#[test]
fn ten_targets_over_five_groups_share_one_stream() {
    let metrics = Metrics::install().unwrap();
    let lab = Lab::new();
    let plane = Plane::with_clock_behind(Duration::ZERO);
    let clients = Clients::new(&lab);
    let org = plane.org();
    let names = ["web", "a", "b", "c", "d"];
    let groups = names.map(|name| plane.group(org, name));
    let host = Host::new("");
    host.enrol(&plane.invite(org, &groups));
    let path = |number: usize| host.file(&format!("list{number}"));
    let targets = (0..9).map(|number| {
        let (group, other) = (names[number % 5], names[(number + 1) % 5]);
        format!(
            "  - name: file{number}\n    type: file\n    path: {}\n    format: text\n\
             \x20   groups: [{group}, {other}]\n",
            path(number).display()
        )
    });
    host.add_targets("", &targets.collect::<String>());
    let _agent = host.start();
    clients.closes(crate::rig::STRANGER);

    for (number, group) in groups.into_iter().enumerate() {
        plane.add_network(org, group, &format!("10.0.{number}.1"), Expiry::Never);
    }

    clients.opens("10.0.0.1");
    for number in 0..9 {
        let wanted = [number % 5, (number + 1) % 5].map(|group| format!("10.0.{group}.1\n"));
        eventually("each file has what its groups have", || {
            let text = fs::read_to_string(path(number)).unwrap_or_default();
            wanted.iter().all(|line| text.contains(line)) && text.lines().count() == 3
        });
    }
    let connections = run("ss", &["-Htn", "state", "established", "dst", "192.0.2.1:8443"]);
    assert_eq!(connections.lines().count(), 1, "{connections}");
    assert_eq!(figure(&metrics, "postern_streams"), "1");
}

/// What the plane's own listener for metrics says of a figure.
fn figure(metrics: &Metrics, name: &str) -> String {
    let address: SocketAddr = "127.0.0.1:9100".parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = Server::new(metrics.router(address), Limits::PUBLIC, TrustedProxies::NONE);
    let listener = runtime.block_on(async { Listener::tcp(address, None).unwrap() });
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    runtime.spawn(async move { server.serve(listener, stopped).await });
    let text = run("curl", &["--silent", "--fail", "http://127.0.0.1:9100/metrics"]);
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
}
