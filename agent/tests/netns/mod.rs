//! Ground for tests that change the firewall of the namespace they run in: a guard, a second host
//! behind a pair of interfaces, and witnesses that are not our own reader.
#![expect(unreachable_pub, reason = "a module of test binaries")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::plan::Plan;
use postern_shared::time::{Expiry, Timestamp};
use rustix::thread::{
    CpuSet, LinkNameSpaceType, move_into_link_name_space, sched_getaffinity, sched_setaffinity,
};
use serde_json::Value;

/// A wait longer than this means that what is waited for will not come.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The addresses of the host under test, and of the gateway behind which all clients are.
pub const HOST_V4: &str = "192.0.2.1";
pub const HOST_V6: &str = "2001:db8::1";
/// Never protected: what arrives there after a probe says that the probe has had its time.
const CONTROL_PORT: u16 = 9;

/// Panics unless this process has a network namespace of its own; then brings up its loopback.
///
/// `unshare --net` gives a namespace whose only interface is the loopback; no developer machine
/// looks like that. `/proc` is asked because `/sys` still shows the namespace it was mounted in.
pub fn require() {
    let table = fs::read_to_string("/proc/self/net/dev").unwrap();
    let names: Vec<&str> =
        table.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim).collect();
    assert_eq!(names, ["lo"], "not in a private network namespace; run `make test`");
    run("ip", &["link", "set", "lo", "up"]);
}

/// Says whether this kernel has tables that belong to a socket and outlive it: Linux 6.9 and later.
pub fn has_owned_tables() -> bool {
    (6, 9) <= kernel_version()
}

/// The kernel's version: 6.1, or 6.18.
pub fn kernel_version() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|char: char| !char.is_ascii_digit());
    let mut number = || numbers.next().unwrap().parse().unwrap();
    (number(), number())
}

/// Runs a program and answers what it prints; panics where it fails.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let (ok, text) = try_run(program, arguments);
    assert!(ok, "{program} {arguments:?}: {text}");
    text
}

/// Runs a program; answers whether it succeeded, and what it printed.
pub fn try_run(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// Runs `nft` with a whole script.
pub fn nft(script: &str) -> String {
    run("nft", &[script])
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// The time, as the agent's clock would give it.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_unix_ms(since.as_millis().try_into().unwrap()).unwrap()
}

/// A deadline from now.
pub fn within(left: Duration) -> Expiry {
    Expiry::At(now().saturating_add(left))
}

pub fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub fn net(text: &str) -> Network {
    text.parse().unwrap()
}

pub fn group(number: u8) -> GroupId {
    GroupId::from_random([number; 16])
}

/// A plan that adds these networks for an hour.
pub fn adding(networks: &[&str]) -> Plan {
    let add = networks.iter().map(|text| (net(text), within(secs(3600)))).collect();
    Plan { add, ..Plan::default() }
}

/// A plan that removes these networks.
pub fn removing(networks: &[&str]) -> Plan {
    let remove = networks.iter().map(|text| (net(text), within(secs(3600)))).collect();
    Plan { remove, ..Plan::default() }
}

/// One plan for one group.
pub fn plans(group: GroupId, plan: Plan) -> BTreeMap<GroupId, Plan> {
    BTreeMap::from([(group, plan)])
}

/// What `nft` lists of a table, as its own objects.
pub fn list_table(table: &str) -> Vec<Value> {
    let (ok, text) = try_run("nft", &["-j", "list", "table", "inet", table]);
    if !ok {
        return Vec::new();
    }
    let json: Value = serde_json::from_str(&text).unwrap();
    json["nftables"].as_array().unwrap().clone()
}

/// What `nft` lists of the sets of a group in table `postern`: the networks, and the seconds left.
/// The rule that goes with the set says how many bits of an element count.
pub fn kernel_entries(group: GroupId) -> BTreeMap<String, u64> {
    let start = format!("allow-{group}-v");
    let mut entries = BTreeMap::new();
    for object in list_table("postern") {
        let set = &object["set"];
        let name = set["name"].as_str().unwrap_or_default();
        let Some(rest) = name.strip_prefix(&start) else { continue };
        let prefix = rest.trim_end_matches("-b").rsplit('-').next().unwrap();
        for element in set["elem"].as_array().into_iter().flatten() {
            let element = &element["elem"];
            let network = format!("{}/{prefix}", element["val"].as_str().unwrap());
            entries.insert(network, element["expires"].as_u64().unwrap());
        }
    }
    entries
}

/// The names of all sets in a table.
pub fn kernel_sets(table: &str) -> Vec<String> {
    let objects = list_table(table);
    objects.iter().filter_map(|object| object["set"]["name"].as_str()).map(str::to_owned).collect()
}

/// Keeps the calling thread on one processor. Packets of one processor stay in order on their way
/// to the other namespace; those of two may pass each other.
fn stay_on_one_cpu() {
    let allowed = sched_getaffinity(None).unwrap();
    let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap();
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one).unwrap();
}

/// Sends one packet after another and counts those that do not arrive, from another thread.
///
/// No answer ever goes back, so that to the kernel every packet is a new connection's first one.
pub struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(usize, usize)>,
}

impl Prober {
    /// Starts to probe `port` of this host from `source`, which reaches it now.
    pub fn start(lab: &Lab, source: &str, port: u16) -> Prober {
        let source: IpAddr = source.parse().unwrap();
        let host: IpAddr = if source.is_ipv4() { HOST_V4 } else { HOST_V6 }.parse().unwrap();
        let server = UdpSocket::bind((host, port)).unwrap();
        let control = UdpSocket::bind((host, CONTROL_PORT)).unwrap();
        server.set_nonblocking(true).unwrap();
        control.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let client = lab.in_peer(move || UdpSocket::bind((source, 0)).unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            stay_on_one_cpu();
            let (mut sent, mut lost) = (0, 0);
            let mut buffer = [0; 16];
            while !stopped.load(Ordering::Relaxed) {
                client.send_to(b"probe", (host, port)).unwrap();
                client.send_to(b"control", (host, CONTROL_PORT)).unwrap();
                control.recv(&mut buffer).unwrap();
                sent += 1;
                lost += usize::from(server.recv(&mut buffer).is_err());
            }
            (sent, lost)
        });
        Prober { stop, thread }
    }

    /// Stops; answers how many probes were sent, and how many of them were lost.
    pub fn stop(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// A second host, connected to this one; all clients live there.
///
/// Any address of 10.0.0.0/8, 198.51.100.0/24, 203.0.113.0/24 and 2001:db8:1::/48 is its own.
pub struct Lab {
    peer: Child,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Lab {
    /// Makes the peer's namespace and the way between the hosts.
    pub fn new() -> Lab {
        require();
        let mut peer = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(peer.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let pid = peer.id().to_string();
        run(
            "ip",
            &["link", "add", "outside", "type", "veth", "peer", "name", "far", "netns", &pid],
        );
        run("ip", &["address", "add", &format!("{HOST_V4}/24"), "dev", "outside"]);
        run("ip", &["address", "add", &format!("{HOST_V6}/64"), "dev", "outside", "nodad"]);
        // No second of waiting for an address that somebody else might have.
        fs::write("/proc/sys/net/ipv6/conf/outside/accept_dad", "0").unwrap();
        run("ip", &["link", "set", "outside", "up"]);
        let (jobs, queue) = mpsc::channel::<Job>();
        let namespace = File::open(format!("/proc/{pid}/ns/net")).unwrap();
        let thread = std::thread::spawn(move || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), kind).unwrap();
            stay_on_one_cpu();
            for job in queue {
                job();
            }
        });
        let lab = Lab { peer, jobs: Some(jobs), thread: Some(thread) };
        lab.furnish();
        lab
    }

    fn furnish(&self) {
        self.in_peer(|| {
            run("ip", &["link", "set", "lo", "up"]);
            run("ip", &["address", "add", "192.0.2.2/24", "dev", "far"]);
            run("ip", &["address", "add", "2001:db8::2/64", "dev", "far", "nodad"]);
            fs::write("/proc/sys/net/ipv6/conf/far/accept_dad", "0").unwrap();
            run("ip", &["link", "set", "far", "up"]);
            fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1").unwrap();
            for network in ["10.0.0.0/8", "198.51.100.0/24", "203.0.113.0/24", "2001:db8:1::/48"] {
                run("ip", &["route", "add", "local", network, "dev", "lo"]);
            }
        });
        for network in ["10.0.0.0/8", "198.51.100.0/24", "203.0.113.0/24"] {
            run("ip", &["route", "add", network, "via", "192.0.2.2"]);
        }
        run("ip", &["route", "add", "2001:db8:1::/48", "via", "2001:db8::2"]);
        // Both hosts know each other before anything is closed or measured.
        for source in ["192.0.2.2", "2001:db8::2"] {
            assert!(self.reaches(source, CONTROL_PORT + 1));
        }
    }

    /// Runs `job` on the other host.
    pub fn in_peer<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        let (answer, answered) = mpsc::channel();
        let job: Job = Box::new(move || drop(answer.send(job())));
        self.jobs.as_ref().unwrap().send(job).unwrap();
        answered.recv().unwrap()
    }

    /// Says whether a new UDP packet from `source` gets through to `port` of this host.
    ///
    /// A second packet to a port that is never protected follows it on the same way: when that one
    /// is here and the first one is not, the first one was dropped.
    pub fn reaches(&self, source: &str, port: u16) -> bool {
        let source: IpAddr = source.parse().unwrap();
        let host: IpAddr = if source.is_ipv4() { HOST_V4 } else { HOST_V6 }.parse().unwrap();
        let server = UdpSocket::bind((host, port)).unwrap();
        let control = UdpSocket::bind((host, CONTROL_PORT)).unwrap();
        server.set_nonblocking(true).unwrap();
        control.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            self.in_peer(move || {
                let client = UdpSocket::bind((source, 0)).unwrap();
                client.send_to(b"probe", (host, port)).unwrap();
                client.send_to(b"control", (host, CONTROL_PORT)).unwrap();
            });
            // Neither comes while the hosts are still looking for each other.
            if control.recv(&mut [0; 16]).is_ok() {
                return server.recv(&mut [0; 16]).is_ok();
            }
        }
        panic!("not even the control packet came from {source}");
    }

    /// Opens a TCP connection from `source` to a listener of this host.
    pub fn connect(&self, source: &str, listener: &TcpListener) -> (TcpStream, TcpStream) {
        let source: IpAddr = source.parse().unwrap();
        let address = listener.local_addr().unwrap();
        let client = self.in_peer(move || connect_from(source, address)).unwrap();
        (client, listener.accept().unwrap().0)
    }
}

/// Connects from one of the many addresses of the peer.
fn connect_from(source: IpAddr, address: SocketAddr) -> std::io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let family = if source.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::new(source, 0))?;
    connect(&socket, &address)?;
    Ok(TcpStream::from(socket))
}

/// Tries for a moment to connect from one port of one of the addresses of the peer, to be called
/// there.
pub fn knock(source: &str, port: u16, to: SocketAddr) -> std::io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::net::{
        AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt,
    };
    const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
    let source = SocketAddr::new(source.parse().unwrap(), port);
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None)?;
    bind(&socket, &source)?;
    match connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    if poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&MOMENT))? == 0 {
        return Err(std::io::ErrorKind::TimedOut.into());
    }
    Ok(sockopt::socket_error(&socket)??)
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.jobs = None;
        drop(self.thread.take().unwrap().join());
        drop(self.peer.kill());
        drop(self.peer.wait());
    }
}
