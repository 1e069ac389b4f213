//! The control plane: the real routes, engine and store, in the test's process.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use postern_controlplane::app::{App, Settings, router};
use postern_controlplane::chance::OsChance;
use postern_controlplane::clock::{Clock, SteadyClock};
use postern_controlplane::config::FamilyUrls;
use postern_controlplane::data_dir::SealingKey;
use postern_controlplane::domain::{
    Actor, AgentReport, Command, Enrolment, Group, Member, MemberKind, Order, Org, Pair, Role, User,
};
use postern_controlplane::engine::{Done, Engine};
use postern_controlplane::http::limit::{Budget, RateLimits};
use postern_controlplane::people::People;
use postern_controlplane::seal::Sealer;
use postern_controlplane::server::{
    Certificates, Limits, Listener, Server, TrustedProxies, self_signed,
};
use postern_controlplane::store::{Options, RedbStore, Store as _};
use postern_shared::ids::{AgentId, EnrolmentId, Epoch, GroupId, MemberId, OrgId, PairId, UserId};
use postern_shared::time::{Expiry, Timestamp, Ttl};
use postern_shared::token::{Token, TokenHash, TokenKind};
use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Where everybody reaches the plane.
pub(crate) const PLANE_URL: &str = "https://192.0.2.1:8443";
const PLANE: &str = "192.0.2.1:8443";
/// Where the proxies of the tests do, without encryption.
pub(crate) const PLAIN: &str = "127.0.0.1:8080";

/// A control plane that can be killed and started again.
pub(crate) struct Plane {
    /// Of the newest life.
    pub(crate) engine: Engine,
    life: Option<Life>,
    dir: TempDir,
    pin: String,
}

struct Life {
    runtime: Runtime,
    writer: JoinHandle<()>,
    _stop: watch::Sender<bool>,
}

/// A pair with its bookmark.
pub(crate) struct NewPair {
    pub(crate) id: PairId,
    pub(crate) bookmark: Token,
}

/// A steady clock that is wrong.
#[derive(Debug)]
struct WrongClock {
    clock: SteadyClock,
    behind: Duration,
}

impl Clock for WrongClock {
    fn now(&self) -> Timestamp {
        self.clock.now().saturating_sub(self.behind)
    }
}

impl Plane {
    /// Makes a new control plane, with a clock that is behind that of the host, and starts it.
    pub(crate) fn with_clock_behind(behind: Duration) -> Plane {
        let dir = tempfile::tempdir().unwrap();
        let made = self_signed(&["192.0.2.1".to_owned()]).unwrap();
        std::fs::write(dir.path().join("tls.crt"), &made.certificate_pem).unwrap();
        std::fs::write(dir.path().join("tls.key"), made.key_pem.expose_secret()).unwrap();
        let epoch = Epoch::from_random(dyn_chance().id());
        drop(RedbStore::create(&store(dir.path()), epoch, Options::default()).unwrap());
        let pin = made.pin.to_string();
        let pin = pin.strip_prefix("sha256//").unwrap_or(&pin);
        let pin = pin.replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned();
        let (engine, life) = begin(dir.path(), behind);
        Plane { engine, life: Some(life), dir, pin }
    }

    /// Ends it at once: whoever is connected sees its connection break.
    pub(crate) fn kill(&mut self) {
        let Some(Life { runtime, writer, .. }) = self.life.take() else { return };
        runtime.block_on(self.engine.stop());
        runtime.shutdown_background();
        // The store is free for the next life when its thread is gone.
        writer.join().unwrap();
    }

    /// Starts it again from the same disk.
    pub(crate) fn revive(&mut self) {
        let (engine, life) = begin(self.dir.path(), Duration::ZERO);
        (self.engine, self.life) = (engine, Some(life));
    }

    /// Copies the store of a plane that is dead, as a backup would.
    pub(crate) fn back_up(&self) {
        assert!(self.life.is_none(), "a store in use is not copied");
        std::fs::copy(store(self.dir.path()), self.dir.path().join("backup")).unwrap();
    }

    /// Puts the copy in the store's place.
    pub(crate) fn restore(&self) {
        assert!(self.life.is_none(), "a store in use is not replaced");
        std::fs::copy(self.dir.path().join("backup"), store(self.dir.path())).unwrap();
    }

    /// Has a command carried out.
    pub(crate) fn order(&self, command: Command) -> Done {
        let order = Order { actor: Actor::Operator, source: None, command };
        let life = self.life.as_ref().expect("a plane that lives");
        life.runtime.block_on(self.engine.submit(order)).unwrap()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.engine.now()
    }

    pub(crate) fn org(&self) -> OrgId {
        let created_at = self.now();
        let id = OrgId::from_random(self.engine.chance().id());
        let name = "acme".parse().unwrap();
        let org = Org { id, name, created_at, pairs_numbered: 0, groups_numbered: 0 };
        let email = "admin@example.org".parse().unwrap();
        let admin_id = UserId::from_random(self.engine.chance().id());
        let admin = User { id: admin_id, org: id, email, role: Role::Admin, created_at };
        self.order(Command::CreateOrg { org, admin });
        id
    }

    pub(crate) fn group(&self, org: OrgId, name: &str) -> GroupId {
        let id = GroupId::from_random(self.engine.chance().id());
        let name = name.parse().unwrap();
        let created_at = self.now();
        self.order(Command::CreateGroup(Group { id, org, number: 0, name, ttl: None, created_at }));
        id
    }

    pub(crate) fn pair(&self, org: OrgId, ttl_secs: u64) -> NewPair {
        let chance = self.engine.chance();
        let (bookmark, server_key) =
            (chance.token(TokenKind::Bookmark), chance.token(TokenKind::Server));
        let id = PairId::from_random(chance.id());
        self.order(Command::CreatePair(Pair {
            id,
            org,
            number: 0,
            name: "laptop".parse().unwrap(),
            contact_email: None,
            ttl: Ttl::from_secs(ttl_secs).unwrap(),
            bookmark: bookmark.hash(),
            server_key: server_key.hash(),
            reports_by_get: false,
            created_at: self.now(),
            deleted_at: None,
        }));
        NewPair { id, bookmark }
    }

    /// The hash of a pair's bookmark, which a report carries.
    pub(crate) fn bookmark_of(&self, pair: PairId) -> TokenHash {
        self.engine.state().pair(pair).unwrap().record.bookmark
    }

    pub(crate) fn add_pair(&self, org: OrgId, group: GroupId, pair: PairId) -> MemberId {
        self.add(org, group, MemberKind::Pair(pair), Expiry::Never)
    }

    pub(crate) fn add_network(
        &self,
        org: OrgId,
        group: GroupId,
        cidr: &str,
        expires: Expiry,
    ) -> MemberId {
        let kind =
            MemberKind::Network { network: cidr.parse().unwrap(), note: "net".parse().unwrap() };
        self.add(org, group, kind, expires)
    }

    fn add(&self, org: OrgId, group: GroupId, kind: MemberKind, expires: Expiry) -> MemberId {
        let id = MemberId::from_random(self.engine.chance().id());
        let added_at = self.now();
        self.order(Command::AddMember(Member { id, org, group, kind, expires, added_at }));
        id
    }

    pub(crate) fn invite(&self, org: OrgId, groups: &[GroupId]) -> String {
        let token = self.engine.chance().token(TokenKind::Enrolment);
        let created_at = self.now();
        self.order(Command::InviteAgent(Enrolment {
            id: EnrolmentId::from_random(self.engine.chance().id()),
            org,
            name: "gatekeeper".parse().unwrap(),
            hash: token.hash(),
            groups: groups.iter().copied().collect::<BTreeSet<GroupId>>(),
            created_at,
            expires_at: created_at.saturating_add(Duration::from_secs(600)),
            used_at: None,
        }));
        format!("{PLANE_URL}#{}.{}", token.expose(), self.pin)
    }

    /// The only agent of the org.
    pub(crate) fn agent(&self, org: OrgId) -> AgentId {
        let state = self.engine.state();
        let agents: Vec<AgentId> = state.agents_of(org).map(|agent| agent.id).collect();
        let [agent] = agents[..] else { panic!("there is one agent, not {}", agents.len()) };
        agent
    }

    /// What the agent last said.
    pub(crate) fn heard_of(&self, agent: AgentId) -> Option<AgentReport> {
        self.engine.board().agent(agent).cloned()
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.kill();
    }
}

fn begin(dir: &Path, behind: Duration) -> (Engine, Life) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let store = RedbStore::open(&store(dir), Options::default()).unwrap();
    let clock = WrongClock { clock: SteadyClock::start(store.high_water()), behind };
    let (engine, writer) =
        Engine::start(Box::new(store), Arc::new(clock), Arc::new(OsChance)).unwrap();
    let certificates = Certificates::load(&dir.join("tls.crt"), &dir.join("tls.key")).unwrap();
    let app = router(App::new(engine.clone(), settings(), people()));
    let server = Server::new(app, Limits::PUBLIC, TrustedProxies::NONE);
    let (stop, stopped) = watch::channel(false);
    for (address, certificates) in [(PLANE, Some(certificates)), (PLAIN, None)] {
        let (server, stopped) = (server.clone(), stopped.clone());
        let listener = runtime.block_on(async {
            let address: SocketAddr = address.parse().unwrap();
            Listener::tcp(address, certificates).unwrap()
        });
        runtime.spawn(async move { server.serve(listener, stopped).await });
    }
    (engine, Life { runtime, writer, _stop: stop })
}

fn store(dir: &Path) -> PathBuf {
    dir.join("store.redb")
}

fn dyn_chance() -> &'static dyn postern_controlplane::chance::Chance {
    &OsChance
}

/// Nobody signs in here.
fn people() -> People {
    People::new(Sealer::new(&SealingKey::new(Box::new([0; 32])), &[]), None)
}

/// Nobody here is to be slowed down.
fn settings() -> Settings {
    let plenty = Budget::per_minute(std::num::NonZeroU32::new(1_000_000).unwrap());
    Settings {
        public_url: PLANE_URL.parse().unwrap(),
        family_urls: FamilyUrls::default(),
        ttl: Ttl::DEFAULT,
        allow_private: true,
        proxies: TrustedProxies::NONE,
        rates: RateLimits {
            reads: plenty,
            writes: plenty,
            failures: plenty,
            failures_of_all: plenty,
            moves: plenty,
        },
        cors_origins: Vec::new(),
    }
}
