//! `kill -9` at any moment, held against a ledger of what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postern_controlplane::chance::{Chance, SeededChance};
use postern_controlplane::domain::Event;
use postern_controlplane::operator::{
    Answer, MemberAsked, MemberEnd, MemberKindView, Operation, OriginAsked,
};
use postern_shared::network::Network;
use postern_shared::scope::{Scope, ScopeSet};
use postern_shared::time::Expiry;
use postern_shared::wire::v1::{BeaconAnswer, Envelope};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::audit;
use crate::plane::{Daemon, Plane, Socket};

const KILLS: usize = 200;
const CLIENTS: usize = 16;
const CLERKS: usize = 2;
/// A round ends after at most so many acknowledgements.
const ACKNOWLEDGED_MAX: u64 = 64;
/// One in so many kills hits a daemon that starts.
const EARLY: u64 = 8;
/// A daemon that starts is killed within this time.
const EARLY_MS_MAX: u64 = 60;
/// Far beyond what a round takes: only a daemon that hangs reaches it.
const HANG: Duration = Duration::from_secs(60);
const SEED: u64 = 0x0070_6f73_7465_726e;

/// What one pair was told, and what it asked for and was not told.
#[derive(Debug, Default)]
struct Client {
    bookmark: String,
    name: String,
    /// Every move that is durable, in order.
    moves: Vec<Ipv4Addr>,
    asked: Option<Ipv4Addr>,
}

/// What became of a record that a clerk made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    AddAsked,
    Present,
    RemoveAsked,
    Gone,
    /// It was asked for and, as a restart showed, never made.
    NeverMade,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Network,
    Pair,
    Key,
}

#[derive(Debug, Default)]
struct Ledger {
    clients: Vec<Client>,
    records: BTreeMap<(Kind, String), Fate>,
}

/// What everybody who makes load shares.
struct Load {
    ledger: Mutex<Ledger>,
    acknowledged: watch::Sender<u64>,
    chance: SeededChance,
    numbers: AtomicU32,
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_invented_by_kill_9() {
    let (plane, runtime) = (Arc::new(Plane::make()), Runtime::new().unwrap());
    let load = Arc::new(Load {
        ledger: Mutex::default(),
        acknowledged: watch::Sender::new(0),
        chance: SeededChance::new(SEED),
        numbers: AtomicU32::new(0),
    });
    prepare(&plane, &load);

    for kill in 0..KILLS {
        if load.draw(EARLY) == 0 {
            kill_early(&plane, &load);
            continue;
        }
        let daemon = plane.start();
        runtime.block_on(settle(&plane, &load));
        runtime.block_on(strain(&plane, &load, daemon));
        assert!(load.acknowledged.borrow().ge(&1), "no progress in round {kill}");
    }

    let daemon = plane.start();
    runtime.block_on(settle(&plane, &load));
    daemon.kill();
    let ledger = load.ledger.lock().unwrap();
    let moves: usize = ledger.clients.iter().map(|client| client.moves.len()).sum();
    assert!(KILLS * 4 < moves, "only {moves} moves: the load was too small to show anything");
    compare_with_audit(&plane, &ledger);
}

impl Load {
    fn draw(&self, below: u64) -> u64 {
        let chance: &dyn Chance = &self.chance;
        chance.number() % below
    }

    fn acknowledge(&self) {
        self.acknowledged.send_modify(|count| *count += 1);
    }

    /// An address that nobody had before.
    fn fresh(&self, first: u8) -> Ipv4Addr {
        let [_, b, c, d] = self.numbers.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        Ipv4Addr::new(first, b, c, d)
    }
}

/// Makes the group and the pairs of the clients, by the commands of the operator.
fn prepare(plane: &Plane, load: &Load) {
    plane.json(&["group", "add", "ssh"]);
    let mut ledger = load.ledger.lock().unwrap();
    for number in 0..CLIENTS {
        let name = format!("client-{number}");
        let made = plane.json(&["pair", "add", &name]);
        plane.json(&["group", "add-member", "ssh", "--pair", &name]);
        let url = made["bookmark"].as_str().unwrap();
        let bookmark = url.rsplit_once('/').unwrap().1.to_owned();
        ledger.clients.push(Client { bookmark, name, ..Client::default() });
    }
}

/// Kills a daemon that may not be ready yet: recovery has to bear it, too.
fn kill_early(plane: &Plane, load: &Load) {
    let mut child = plane.spawn();
    std::thread::sleep(Duration::from_millis(load.draw(EARLY_MS_MAX)));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Has everybody work until so much was acknowledged, then kills the daemon.
async fn strain(plane: &Arc<Plane>, load: &Arc<Load>, daemon: Daemon) {
    let target = *load.acknowledged.borrow() + 1 + load.draw(ACKNOWLEDGED_MAX);
    let mut seen = load.acknowledged.subscribe();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut tasks = JoinSet::new();
    for number in 0..CLIENTS {
        let url = format!("http://{}/b/", daemon.address);
        tasks.spawn(rove(Arc::clone(load), http.clone(), url, number));
    }
    for _ in 0..CLERKS {
        tasks.spawn(keep_books(Arc::clone(load), plane.connect().await));
    }
    let reached = timeout(HANG, seen.wait_for(|count| target <= *count)).await;
    reached.expect("the daemon hangs").unwrap();
    daemon.kill();
    let all = timeout(HANG, async {
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap()
        }
    });
    all.await.expect("somebody waits for a daemon that is dead");
}

/// Reports one new address after the other, until the daemon is gone.
async fn rove(load: Arc<Load>, http: reqwest::Client, url: String, number: usize) {
    let bookmark = load.ledger.lock().unwrap().clients[number].bookmark.clone();
    loop {
        let address = load.fresh(10);
        load.ledger.lock().unwrap().clients[number].asked = Some(address);
        let report = http.post(format!("{url}{bookmark}"));
        let report = report.header("x-forwarded-for", address.to_string());
        let Ok(response) = report.header("accept", "application/json").send().await else { return };
        let status = response.status();
        let Ok(body) = response.bytes().await else { return };
        assert!(status.is_success(), "{status}: {body:?}");
        let answer: Envelope<BeaconAnswer> = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer.data.ipv4, Some(address));
        let mut ledger = load.ledger.lock().unwrap();
        ledger.clients[number].asked = None;
        ledger.clients[number].moves.push(address);
        drop(ledger);
        load.acknowledge();
    }
}

/// Makes and removes records over the control socket, until the daemon is gone.
async fn keep_books(load: Arc<Load>, mut socket: Socket) {
    loop {
        let (key, operation, done) = next_operation(&load);
        if socket.ask(operation).await.is_err() {
            return;
        }
        load.ledger.lock().unwrap().records.insert(key, done);
        load.acknowledge();
    }
}

/// Draws what to do, and notes that it was asked for.
fn next_operation(load: &Load) -> ((Kind, String), Operation, Fate) {
    let mut ledger = load.ledger.lock().unwrap();
    let present = ledger.records.iter().filter(|(_, fate)| **fate == Fate::Present);
    let mut present: Vec<(Kind, String)> = present.map(|(key, _)| key.clone()).collect();
    if !present.is_empty() && load.draw(3) == 0 {
        let at = usize::try_from(load.draw(present.len() as u64)).unwrap();
        let key = present.swap_remove(at);
        ledger.records.insert(key.clone(), Fate::RemoveAsked);
        let operation = removal(&key);
        return (key, operation, Fate::Gone);
    }
    let kind = [Kind::Network, Kind::Pair, Kind::Key][usize::try_from(load.draw(3)).unwrap()];
    let key = (kind, load.fresh(172).to_string());
    ledger.records.insert(key.clone(), Fate::AddAsked);
    let operation = addition(&key);
    (key, operation, Fate::Present)
}

fn addition((kind, name): &(Kind, String)) -> Operation {
    let label = name.parse().unwrap();
    match kind {
        Kind::Network => Operation::AddMember {
            group: "ssh".parse().unwrap(),
            member: MemberAsked::Network { network: name.parse().unwrap(), note: label },
            expires: MemberEnd::At(Expiry::Never),
        },
        Kind::Pair => {
            Operation::AddPair { name: label, email: None, ttl: None, reports_by_get: false }
        }
        Kind::Key => Operation::MintKey {
            name: label,
            scopes: ScopeSet::from_iter([Scope::PairsRead]),
            origins: vec![OriginAsked::Network("127.0.0.1".parse().unwrap())],
            lifetime: None,
        },
    }
}

fn removal((kind, name): &(Kind, String)) -> Operation {
    let record = name.parse().unwrap();
    match kind {
        Kind::Network => Operation::RemoveMember { group: "ssh".parse().unwrap(), member: record },
        Kind::Pair => Operation::RemovePair { pair: record },
        Kind::Key => Operation::RevokeKey { key: record },
    }
}

/// Holds what a daemon has after its start against the ledger, and settles what was asked for and
/// not answered: it was done or it was not.
async fn settle(plane: &Plane, load: &Load) {
    let mut socket = plane.connect().await;
    let (mut found, addresses) = read(&mut socket).await;
    let mut ledger = load.ledger.lock().unwrap();
    for client in &mut ledger.clients {
        assert!(found.remove(&(Kind::Pair, client.name.clone())), "{} is lost", client.name);
        let (now, asked) = (addresses.get(&client.name).copied(), client.asked.take());
        if now != client.moves.last().copied() {
            assert!(
                now.is_some() && now == asked,
                "{now:?} was neither told nor asked: {client:?}"
            );
            client.moves.extend(now);
        }
    }
    for (key, fate) in &mut ledger.records {
        let is_there = found.remove(key);
        *fate = match (*fate, is_there) {
            (Fate::Present | Fate::AddAsked | Fate::RemoveAsked, true) => Fate::Present,
            (Fate::RemoveAsked | Fate::Gone, false) => Fate::Gone,
            (Fate::AddAsked | Fate::NeverMade, false) => Fate::NeverMade,
            (Fate::Present, false) => panic!("{key:?} was acknowledged and is lost"),
            (Fate::Gone | Fate::NeverMade, true) => panic!("{key:?} is back"),
        };
    }
    assert!(found.is_empty(), "nobody asked for {found:?}");
}

/// Reads all records by kind and name, and the addresses of pairs by name.
async fn read(socket: &mut Socket) -> (BTreeSet<(Kind, String)>, BTreeMap<String, Ipv4Addr>) {
    let (mut found, mut addresses) = (BTreeSet::new(), BTreeMap::new());
    let mut after = None;
    loop {
        let Answer::Pairs(page) = socket.ask(Operation::ListPairs { after }).await.unwrap() else {
            panic!("no pairs");
        };
        for view in page.items {
            let name = view.pair.name.to_string();
            for address in view.addresses {
                let IpAddr::V4(v4) = address.address else { panic!("an address of IPv6") };
                addresses.insert(name.clone(), v4);
            }
            found.insert((Kind::Pair, name));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut after = None;
    loop {
        let group = "ssh".parse().unwrap();
        let asked = Operation::ListMembers { group, after };
        let Answer::Members(page) = socket.ask(asked).await.unwrap() else { panic!("no members") };
        for member in page.items {
            if let MemberKindView::Network { network, note } = member.kind {
                assert_eq!(Network::host(note.as_str().parse().unwrap()), network);
                found.insert((Kind::Network, note.to_string()));
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut after = None;
    loop {
        let asked = Operation::ListKeys { all: false, after };
        let Answer::Keys(page) = socket.ask(asked).await.unwrap() else { panic!("no keys") };
        let names = page.items.iter().map(|key| key.name.to_string());
        found.extend(names.filter(|name| name != "first").map(|name| (Kind::Key, name)));
        after = page.next;
        if after.is_none() {
            return (found, addresses);
        }
    }
}

/// Every change has its record, in order, and there is no record of anything else.
fn compare_with_audit(plane: &Plane, ledger: &Ledger) {
    let (mut moves, mut names) = (BTreeMap::new(), BTreeMap::new());
    let (mut added, mut removed) = (BTreeSet::new(), BTreeSet::new());
    for record in audit::walk(&plane.data()) {
        match record.event {
            Event::PairReported { pair, ipv4, ipv6, moved } => {
                assert!(moved && ipv6.is_none());
                moves.entry(pair).or_insert_with(Vec::new).extend(ipv4.map(|spot| spot.address));
            }
            Event::PairCreated { pair, name, .. } => {
                names.insert(name.to_string(), pair);
                assert!(added.insert((Kind::Pair, name.to_string())));
            }
            Event::PairDeleted { name, .. } => {
                assert!(removed.insert((Kind::Pair, name.to_string())));
            }
            Event::MemberAdded { name, .. } => {
                assert!(added.insert((Kind::Network, name.to_string())));
            }
            Event::MemberRemoved { name, .. } => {
                assert!(removed.insert((Kind::Network, name.unwrap().to_string())));
            }
            Event::KeyMinted { name, .. } => {
                assert!(added.insert((Kind::Key, name.to_string())));
            }
            Event::KeyRevoked { name, .. } => {
                assert!(removed.insert((Kind::Key, name.to_string())));
            }
            Event::OrgCreated { .. } | Event::GroupCreated { .. } | Event::UserInvited { .. } => {}
            other @ (Event::PairEdited { .. }
            | Event::GroupEdited { .. }
            | Event::GroupDeleted { .. }
            | Event::AgentInvited { .. }
            | Event::AgentEnrolled { .. }
            | Event::AgentRegrouped { .. }
            | Event::AgentRevoked { .. }
            | Event::ReceiptFailed { .. }
            | Event::BookmarkRotated { .. }
            | Event::ServerKeyRotated { .. }
            | Event::RequestsRefused { .. }
            | Event::KeyNarrowed { .. }
            | Event::UserAccepted { .. }
            | Event::SignInTried { .. }
            | Event::SignedIn { .. }
            | Event::SignedOut { .. }
            | Event::PasswordSet { .. }
            | Event::ResetRequested { .. }
            | Event::RecoveryIssued { .. }
            | Event::AuthenticatorReplaced { .. }
            | Event::RecoveryCodesReplaced { .. }
            | Event::UserRoleSet { .. }
            | Event::UserRemoved { .. }
            | Event::AddressesClosed { .. }
            | Event::BookmarkMailed { .. }) => panic!("nobody asked for {other:?}"),
        }
    }
    for client in &ledger.clients {
        assert_eq!(moves[&names[&client.name]], client.moves, "{}", client.name);
        assert!(added.remove(&(Kind::Pair, client.name.clone())));
        assert!(added.remove(&(Kind::Network, client.name.clone())));
    }
    assert!(added.remove(&(Kind::Key, "first".to_owned())));
    let of = |fates: &[Fate]| -> BTreeSet<(Kind, String)> {
        let chosen = ledger.records.iter().filter(|(_, fate)| fates.contains(fate));
        chosen.map(|(key, _)| key.clone()).collect()
    };
    assert_eq!(added, of(&[Fate::Present, Fate::Gone]));
    assert_eq!(removed, of(&[Fate::Gone]));
}
