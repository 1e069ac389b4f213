//! A control plane in this process, on a loopback socket without TLS, and clients whose addresses
//! a trusted proxy reports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::routing::any;
use postern_controlplane::app::{self, App, Settings};
use postern_controlplane::chance::OsChance;
use postern_controlplane::clock::SteadyClock;
use postern_controlplane::config::FamilyUrls;
use postern_controlplane::data_dir::SealingKey;
use postern_controlplane::domain::{
    Actor, Command, Group, GroupEdit, Key, Member, MemberKind, Order, Org, Origin, Pair, Role, User,
};
use postern_controlplane::engine::Engine;
use postern_controlplane::http::border::{Border, finish};
use postern_controlplane::http::limit::{Budget, RateLimits};
use postern_controlplane::people::People;
use postern_controlplane::seal::Sealer;
use postern_controlplane::server::{ForwardHeader, Limits, Listener, Server, TrustedProxies};
use postern_controlplane::store::{Options, RedbStore};
use postern_shared::ids::{Epoch, GroupId, KeyId, MemberId, OrgId, PairId, UserId};
use postern_shared::network::Network;
use postern_shared::scope::ScopeSet;
use postern_shared::time::{Expiry, Timestamp, Ttl};
use postern_shared::token::{Token, TokenKind};
use tokio::sync::watch;

/// A control plane with one org and one group.
pub(crate) struct Plane {
    pub(crate) engine: Engine,
    pub(crate) address: SocketAddr,
    /// Where the same server has a handler that does nothing, at [`NOTHING`].
    pub(crate) floor: SocketAddr,
    pub(crate) group: GroupId,
    org: OrgId,
    _stop: watch::Sender<bool>,
}

/// The route of the handler that does nothing.
pub(crate) const NOTHING: &str = "/nothing";

impl Plane {
    /// Starts a plane with a store in `folder`, on the current runtime.
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Plane> {
        let path = folder.join("plane.redb");
        let epoch = Epoch::from_random([1; 16]);
        let store = RedbStore::create(&path, epoch, Options::default())?;
        let clock = Arc::new(SteadyClock::start(Timestamp::EPOCH));
        let (engine, _writer) = Engine::start(Box::new(store), clock.clone(), Arc::new(OsChance))?;
        let proxies = TrustedProxies {
            networks: vec!["127.0.0.0/8".parse()?],
            header: ForwardHeader::XForwardedFor,
        };
        let app = App::new(
            engine.clone(),
            Settings {
                public_url: "http://127.0.0.1".parse().map_err(anyhow::Error::msg)?,
                family_urls: FamilyUrls::default(),
                ttl: Ttl::DEFAULT,
                allow_private: true,
                proxies: proxies.clone(),
                rates: no_rate_limits(),
                cors_origins: Vec::new(),
            },
            // Nobody signs in here.
            People::new(Sealer::new(&SealingKey::new(Box::new([0; 32])), &[]), None),
        );
        let nothing = Router::new().route(NOTHING, any(|| async { "" }));
        let border = Border::new(proxies.clone(), clock, engine.chance());
        let (stop, stopped) = watch::channel(false);
        let serve = |router| {
            let listener = Listener::tcp((Ipv4Addr::LOCALHOST, 0).into(), None)?;
            let address = listener.local_address().expect("a TCP listener has an address");
            let limits = Limits { connections_by_peer: 2_000, ..Limits::PUBLIC };
            let (server, stopped) = (Server::new(router, limits, proxies.clone()), stopped.clone());
            tokio::spawn(async move { server.serve(listener, stopped).await });
            anyhow::Ok(address)
        };
        let (address, floor) = (serve(app::router(app))?, serve(finish(nothing, border))?);

        let org = OrgId::from_random(engine.chance().id());
        let group = GroupId::from_random(engine.chance().id());
        let plane = Plane { engine, address, floor, group, org, _stop: stop };
        plane.furnish().await?;
        Ok(plane)
    }

    async fn furnish(&self) -> anyhow::Result<()> {
        let (org, created_at) = (self.org, self.engine.now());
        let admin = User {
            id: UserId::from_random(self.engine.chance().id()),
            org,
            email: "admin@example.org".parse()?,
            role: Role::Admin,
            created_at,
        };
        let name = "bench".parse()?;
        let record = Org { id: org, name, created_at, pairs_numbered: 0, groups_numbered: 0 };
        self.ask(Command::CreateOrg { org: record, admin }).await?;
        self.ask(Command::CreateGroup(Group {
            id: self.group,
            org,
            number: 0,
            name: "bench".parse()?,
            ttl: None,
            created_at,
        }))
        .await?;
        Ok(())
    }

    /// Mints a key that works from one network; each follower has one of its own, as hosts have.
    pub(crate) async fn key(&self) -> anyhow::Result<Token> {
        let key = self.engine.chance().token(TokenKind::Key);
        self.ask(Command::MintKey(Key {
            id: KeyId::from_random(self.engine.chance().id()),
            org: self.org,
            name: "bench".parse()?,
            hash: key.hash(),
            scopes: ScopeSet::ALL,
            origins: vec![Origin::Network("203.0.113.0/24".parse()?)],
            created_at: self.engine.now(),
            expires: Expiry::Never,
            revoked_at: None,
        }))
        .await?;
        Ok(key)
    }

    /// Makes a pair, a member of the group where `is_member`; answers its bookmark.
    pub(crate) async fn pair(&self, is_member: bool) -> anyhow::Result<Token> {
        let chance = self.engine.chance();
        let bookmark = chance.token(TokenKind::Bookmark);
        let pair = Pair {
            id: PairId::from_random(chance.id()),
            org: self.org,
            number: 0,
            name: "bench".parse()?,
            contact_email: None,
            ttl: Ttl::DEFAULT,
            bookmark: bookmark.hash(),
            server_key: chance.token(TokenKind::Server).hash(),
            reports_by_get: false,
            created_at: self.engine.now(),
            deleted_at: None,
        };
        let id = pair.id;
        self.ask(Command::CreatePair(pair)).await?;
        if is_member {
            self.ask(Command::AddMember(Member {
                id: MemberId::from_random(self.engine.chance().id()),
                org: self.org,
                group: self.group,
                kind: MemberKind::Pair(id),
                expires: Expiry::Never,
                added_at: self.engine.now(),
            }))
            .await?;
        }
        Ok(bookmark)
    }

    /// Makes so many fixed networks members of the group.
    pub(crate) async fn networks(&self, count: u32) -> anyhow::Result<()> {
        let member = |number: u32| Member {
            id: MemberId::from_random(self.engine.chance().id()),
            org: self.org,
            group: self.group,
            kind: MemberKind::Network {
                network: Network::host(Ipv4Addr::from(0x0a00_0000 + number * 2).into()),
                note: "bench".parse().expect("a label"),
            },
            expires: Expiry::Never,
            added_at: self.engine.now(),
        };
        for number in 0..count {
            self.ask(Command::AddMember(member(number))).await?;
        }
        Ok(())
    }

    /// The revision of the newest commit; each commit is one more.
    pub(crate) async fn revision(&self) -> anyhow::Result<u64> {
        let (org, group, edit) = (self.org, self.group, GroupEdit::default());
        let nothing = Command::EditGroup { org, group, edit, expected: None };
        let order = Order { actor: Actor::Operator, source: None, command: nothing };
        Ok(self.engine.submit(order).await?.revision.0)
    }

    async fn ask(&self, command: Command) -> anyhow::Result<()> {
        let order = Order { actor: Actor::Operator, source: None, command };
        self.engine.submit(order).await?;
        Ok(())
    }
}

/// The address that a client reports from for the nth time.
pub(crate) fn address(client: usize, round: u64) -> IpAddr {
    let [_, a, b, c] = (round as u32).to_be_bytes();
    Ipv4Addr::new(11 + (client % 100) as u8, a, b, c ^ (client / 100) as u8).into()
}

fn no_rate_limits() -> RateLimits {
    let unlimited = Budget::per_minute(NonZeroU32::MAX);
    RateLimits {
        reads: unlimited,
        writes: unlimited,
        failures: unlimited,
        failures_of_all: unlimited,
        moves: unlimited,
    }
}
