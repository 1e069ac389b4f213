//! A control plane on a loopback socket, and those who call it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use postern_controlplane::app::{App, Settings, router};
use postern_controlplane::audit::AuditKey;
use postern_controlplane::chance::{Chance, SeededChance};
use postern_controlplane::clock::{Clock, ManualClock};
use postern_controlplane::config::FamilyUrls;
use postern_controlplane::data_dir::SealingKey;
use postern_controlplane::domain::{
    Actor, Command, Enrolment, Group, Key, Member, MemberKind, Order, Org, Origin, Pair, Role, User,
};
use postern_controlplane::engine::Engine;
use postern_controlplane::http::limit::{Budget, RateLimits};
use postern_controlplane::mail::{Outbox, Patience, Transport};
use postern_controlplane::people::People;
use postern_controlplane::seal::Sealer;
use postern_controlplane::server::{ForwardHeader, Limits, Listener, Peer, Server, TrustedProxies};
use postern_controlplane::store::{MemoryStore, Store};
use postern_shared::ids::{EnrolmentId, Epoch, GroupId, KeyId, MemberId, OrgId, PairId, UserId};
use postern_shared::scope::{Scope, ScopeSet};
use postern_shared::time::{Expiry, Timestamp, Ttl};
use postern_shared::token::{Token, TokenKind};
use postern_shared::wire::v1::StreamEvent;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;
use tokio::sync::watch;

use crate::held::Held;

/// Longest wait for what must happen.
pub(crate) const BOUND: Duration = Duration::from_secs(20);
/// Where most callers of the tests are.
pub(crate) const OFFICE: &str = "198.51.100.7";

/// A control plane that listens, and the proxy through which everybody calls it.
pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) address: SocketAddr,
    pub(crate) router: Router,
    /// Holds every answer against the API's document.
    pub(crate) held: Held,
    pub(crate) app: App,
    http: reqwest::Client,
    stop: watch::Sender<bool>,
}

/// A pair with its secrets.
pub(crate) struct NewPair {
    pub(crate) id: PairId,
    pub(crate) bookmark: Token,
    pub(crate) server_key: Token,
}

/// A request without a socket, through the proxy's eyes, so that time can stand still.
pub(crate) fn unplugged(path: &str, secret: &Token, address: &str) -> Request<Body> {
    let peer = Peer::Tcp { address: "127.0.0.1:9".parse().unwrap(), is_tls: false };
    Request::get(path)
        .header("authorization", format!("Bearer {}", secret.expose()))
        .header("x-forwarded-for", address)
        .extension(peer)
        .body(Body::empty())
        .unwrap()
}

/// Somebody at an address, with a secret or without.
pub(crate) struct Caller<'a> {
    world: &'a World,
    address: String,
    secret: Option<String>,
}

/// An open stream, read event by event.
pub(crate) struct Events {
    response: Response,
    text: String,
}

/// What a stream said, or that it ended.
#[derive(Debug, PartialEq)]
pub(crate) enum Said {
    Event(StreamEvent),
    Comment,
    End,
}

/// No test waits for another try.
const SWIFT: Patience = Patience { base: Duration::from_millis(5), cap: Duration::from_millis(5) };

fn sealer() -> Sealer {
    Sealer::new(&SealingKey::new(Box::new([9; 32])), &[])
}

pub(crate) fn start_time() -> Timestamp {
    Timestamp::from_unix_ms(1_767_225_600_000).unwrap()
}

pub(crate) fn settings() -> Settings {
    Settings {
        public_url: "https://plane.example".parse().unwrap(),
        family_urls: FamilyUrls::default(),
        ttl: Ttl::DEFAULT,
        allow_private: true,
        proxies: TrustedProxies {
            networks: vec!["127.0.0.1".parse().unwrap()],
            header: ForwardHeader::XForwardedFor,
        },
        rates: RateLimits::DEFAULT,
        cors_origins: Vec::new(),
    }
}

/// Settings under which no test meets a budget by accident.
pub(crate) fn generous() -> Settings {
    let budget =
        Budget { burst: NonZeroU32::new(100_000).unwrap(), window: Duration::from_secs(1) };
    let rates = RateLimits {
        reads: budget,
        writes: budget,
        failures: budget,
        failures_of_all: budget,
        moves: budget,
    };
    Settings { rates, ..settings() }
}

impl World {
    pub(crate) fn start() -> World {
        World::with(settings())
    }

    pub(crate) fn with(settings: Settings) -> World {
        World::on(Box::new(MemoryStore::new(Epoch::from_random([1; 16]))), settings)
    }

    pub(crate) fn on(store: Box<dyn Store>, settings: Settings) -> World {
        World::mailing(store, settings, None)
    }

    /// A plane that sends mail by `transport`.
    pub(crate) fn mailing(
        store: Box<dyn Store>,
        settings: Settings,
        transport: Option<Transport>,
    ) -> World {
        let clock = Arc::new(ManualClock::at(start_time()));
        let chance: Arc<dyn Chance> = Arc::new(SeededChance::new(42));
        let time = Arc::clone(&clock) as Arc<dyn Clock>;
        let key = AuditKey::from_seed(&[5; 32]).unwrap().as_new();
        let (engine, _) = Engine::start_signing(store, time, chance, key).unwrap();
        let proxies = settings.proxies.clone();
        let outbox = transport.map(|transport| {
            Outbox::start(transport, SWIFT, engine.clone(), Arc::new(SeededChance::new(43)))
        });
        let people = People::new(sealer(), outbox);
        let app = App::new(engine.clone(), settings, people);
        let (router, held) = Held::around(router(app.clone()));
        let server = Server::new(router.clone(), Limits::PUBLIC, proxies);
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let address = listener.local_address().unwrap();
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(async move { server.serve(listener, stopped).await });
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        World { engine, clock, address, router, app, held, http, stop }
    }

    /// Somebody without a secret.
    pub(crate) fn at(&self, address: &str) -> Caller<'_> {
        Caller { world: self, address: address.into(), secret: None }
    }

    /// Somebody with a secret.
    pub(crate) fn holder(&self, secret: &Token, address: &str) -> Caller<'_> {
        let secret = Some(secret.expose().to_owned());
        Caller { world: self, address: address.into(), secret }
    }

    pub(crate) async fn order(&self, command: Command) {
        let order = Order { actor: Actor::Operator, source: None, command };
        self.engine.submit(order).await.unwrap();
    }

    pub(crate) async fn org(&self, name: &str) -> OrgId {
        let chance = self.engine.chance();
        let org = Org {
            id: OrgId::from_random(chance.id()),
            name: name.parse().unwrap(),
            created_at: self.engine.now(),
            pairs_numbered: 0,
            groups_numbered: 0,
        };
        let admin = User {
            id: UserId::from_random(chance.id()),
            org: org.id,
            email: "admin@example.org".parse().unwrap(),
            role: Role::Admin,
            created_at: self.engine.now(),
        };
        let id = org.id;
        self.order(Command::CreateOrg { org, admin }).await;
        id
    }

    /// A key with all scopes that works from [`OFFICE`].
    pub(crate) async fn key(&self, org: OrgId) -> Token {
        let (_, token) = self.key_with(org, &Scope::ALL, &[OFFICE], Expiry::Never).await;
        token
    }

    pub(crate) async fn key_with(
        &self,
        org: OrgId,
        scopes: &[Scope],
        origins: &[&str],
        expires: Expiry,
    ) -> (KeyId, Token) {
        let token = self.engine.chance().token(TokenKind::Key);
        let network = |origin: &&str| Origin::Network(origin.parse().unwrap());
        let key = Key {
            id: KeyId::from_random(self.engine.chance().id()),
            org,
            name: "key".parse().unwrap(),
            hash: token.hash(),
            scopes: scopes.iter().copied().collect::<ScopeSet>(),
            origins: origins.iter().map(network).collect(),
            created_at: self.engine.now(),
            expires,
            revoked_at: None,
        };
        let id = key.id;
        self.order(Command::MintKey(key)).await;
        (id, token)
    }

    /// A key with all scopes that works only from where its own pair is.
    pub(crate) async fn locked_key(&self, org: OrgId) -> (NewPair, Token) {
        let chance = self.engine.chance();
        let token = chance.token(TokenKind::Key);
        let key = Key {
            id: KeyId::from_random(chance.id()),
            org,
            name: "rover".parse().unwrap(),
            hash: token.hash(),
            scopes: ScopeSet::ALL,
            origins: Vec::new(), // given by the decision
            created_at: self.engine.now(),
            expires: Expiry::Never,
            revoked_at: None,
        };
        let (new, pair) = self.unmade_pair(org, Ttl::DEFAULT, false);
        self.order(Command::MintLockedKey { key: Box::new(key), pair: Box::new(pair) }).await;
        (new, token)
    }

    pub(crate) async fn pair(&self, org: OrgId, ttl_secs: u64) -> NewPair {
        self.pair_with(org, ttl_secs, false).await
    }

    pub(crate) async fn pair_with(
        &self,
        org: OrgId,
        ttl_secs: u64,
        reports_by_get: bool,
    ) -> NewPair {
        let ttl = Ttl::from_secs(ttl_secs).unwrap();
        let (new, pair) = self.unmade_pair(org, ttl, reports_by_get);
        self.order(Command::CreatePair(pair)).await;
        new
    }

    fn unmade_pair(&self, org: OrgId, ttl: Ttl, reports_by_get: bool) -> (NewPair, Pair) {
        let chance = self.engine.chance();
        let bookmark = chance.token(TokenKind::Bookmark);
        let server_key = chance.token(TokenKind::Server);
        let pair = Pair {
            id: PairId::from_random(chance.id()),
            org,
            number: 0,
            name: "laptop <b>".parse().unwrap(),
            contact_email: None,
            ttl,
            bookmark: bookmark.hash(),
            server_key: server_key.hash(),
            reports_by_get,
            created_at: self.engine.now(),
            deleted_at: None,
        };
        (NewPair { id: pair.id, bookmark, server_key }, pair)
    }

    pub(crate) async fn group(&self, org: OrgId) -> GroupId {
        let id = GroupId::from_random(self.engine.chance().id());
        self.order(Command::CreateGroup(Group {
            id,
            org,
            number: 0,
            name: "web".parse().unwrap(),
            ttl: None,
            created_at: self.engine.now(),
        }))
        .await;
        id
    }

    pub(crate) async fn member(
        &self,
        org: OrgId,
        group: GroupId,
        kind: MemberKind,
        expires: Expiry,
    ) {
        let id = MemberId::from_random(self.engine.chance().id());
        let added_at = self.engine.now();
        self.order(Command::AddMember(Member { id, org, group, kind, expires, added_at })).await;
    }

    pub(crate) async fn network(&self, org: OrgId, group: GroupId, cidr: &str) {
        let note = "office".parse().unwrap();
        let kind = MemberKind::Network { network: cidr.parse().unwrap(), note };
        self.member(org, group, kind, Expiry::Never).await;
    }

    pub(crate) async fn invite(&self, org: OrgId, groups: &[GroupId]) -> Token {
        let token = self.engine.chance().token(TokenKind::Enrolment);
        self.order(Command::InviteAgent(Enrolment {
            id: EnrolmentId::from_random(self.engine.chance().id()),
            org,
            name: "gatekeeper".parse().unwrap(),
            hash: token.hash(),
            groups: groups.iter().copied().collect::<BTreeSet<GroupId>>(),
            created_at: self.engine.now(),
            expires_at: self.engine.now().saturating_add(Duration::from_secs(600)),
            used_at: None,
        }))
        .await;
        token
    }

    /// Reports that a pair is at `address`.
    pub(crate) async fn report(&self, pair: &NewPair, address: &str) -> Value {
        self.report_by(pair.bookmark.expose(), address).await
    }

    /// Reports that the pair of a bookmark is at `address`.
    pub(crate) async fn report_by(&self, bookmark: &str, address: &str) -> Value {
        let answer = self.at(address).send(Method::POST, &format!("/b/{bookmark}")).await;
        assert_eq!(answer.status(), 200);
        within(answer.json()).await.unwrap()
    }

    /// Stops to serve: open requests are asked to end.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if !std::thread::panicking() {
            assert_eq!(
                self.held.faults(),
                Vec::<String>::new(),
                "answers that differ from the document"
            );
        }
    }
}

impl Caller<'_> {
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.world.address);
        let request = self.world.http.request(method, url);
        let request = request.header("x-forwarded-for", &self.address);
        match &self.secret {
            Some(secret) => request.header("authorization", format!("Bearer {secret}")),
            None => request,
        }
    }

    pub(crate) async fn send(&self, method: Method, path: &str) -> Response {
        within(self.request(method, path).send()).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.send(Method::GET, path).await
    }

    pub(crate) async fn json(&self, method: Method, path: &str, body: &Value) -> Response {
        within(self.request(method, path).json(body).send()).await.unwrap()
    }

    /// The content of a success.
    pub(crate) async fn data(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status(), 200, "{path}");
        let mut body: Value = within(answer.json()).await.unwrap();
        body["data"].take()
    }

    pub(crate) async fn stream(&self, follow: &[String]) -> Events {
        let groups: Vec<String> = follow.iter().map(|one| format!("group={one}")).collect();
        let response = self.get(&format!("/api/v1/stream?{}", groups.join("&"))).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events { response, text: String::new() }
    }
}

impl Events {
    /// The next word of the stream, comments included.
    pub(crate) async fn next(&mut self) -> Said {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let said = read(block);
                self.text = rest.to_owned();
                return said;
            }
            match within(self.response.chunk()).await.unwrap() {
                Some(bytes) => self.text.push_str(std::str::from_utf8(&bytes).unwrap()),
                None => return Said::End,
            }
        }
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> StreamEvent {
        match self.next().await {
            Said::Event(event) => event,
            other @ (Said::Comment | Said::End) => panic!("an event should come, not {other:?}"),
        }
    }
}

fn read(block: &str) -> Said {
    if block.starts_with(':') {
        return Said::Comment;
    }
    let (name, data) = block.split_once('\n').unwrap();
    let name = name.strip_prefix("event: ").unwrap();
    let data = data.strip_prefix("data: ").unwrap();
    Said::Event(StreamEvent::from_sse(name, data).unwrap().unwrap())
}

/// The body of a failure, without what names the request.
pub(crate) async fn problem(answer: Response) -> Value {
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let mut problem: Value = within(answer.json()).await.unwrap();
    let request_id = problem.as_object_mut().unwrap().remove("request_id");
    assert!(request_id.is_some_and(|id| id.as_str().unwrap().starts_with("req_")));
    problem
}

/// Waits for what must happen soon.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(BOUND, future).await.expect("it should have happened by now")
}
