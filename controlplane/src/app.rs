//! Everything that is served to the world: all routes, and what they share.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use futures_util::future::join_all;
use postern_shared::ids::OrgId;
use postern_shared::network::Network;
use postern_shared::time::{Timestamp, Ttl};

use crate::api::auth::LastUsed;
use crate::api::cors::Sharing;
use crate::api::ips::Written;
use crate::api::once::Unanswered;
use crate::api::stream::Seats;
use crate::audit::Refusals;
use crate::beacon::Confirmations;
use crate::config::{FamilyUrls, PublicUrl, WebOrigin};
use crate::data_dir::invited_pin;
use crate::domain::{Actor, Refusal};
use crate::engine::Engine;
use crate::health::Readiness;
use crate::http::border::{Border, answer_all};
use crate::http::limit::{Limiter, RateLimits};
use crate::http::{around, host};
use crate::operator::Plane;
use crate::people::{self, People};
use crate::server::{Certificates, TrustedProxies};
use crate::{api, beacon, compat, console, health};

/// What the operator decides about the routes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Under which address clients reach the plane.
    pub public_url: PublicUrl,
    /// The names that lead to it by one address family alone.
    pub family_urls: FamilyUrls,
    /// How long a reported address counts, where nobody says.
    pub ttl: Ttl,
    /// Whether private addresses may be reported, and be members by the API: LANs and VPNs are
    /// real, so usually they may. The operator, whose policy this is, may always add them.
    pub allow_private: bool,
    /// Whose word on a caller's address is taken.
    pub proxies: TrustedProxies,
    /// The budgets of callers.
    pub rates: RateLimits,
    /// The web pages that may call the API.
    pub cors_origins: Vec<WebOrigin>,
}

impl Settings {
    /// Says why `network` is not taken from outside, where it is not.
    pub(crate) fn refuses(&self, network: Network) -> Option<String> {
        let refused = !self.allow_private && network.is_private();
        refused.then(|| format!("{network} is private, which this control plane does not take"))
    }
}

/// What the routes share. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

struct Parts {
    engine: Engine,
    rules: RwLock<Rules>,
    last_used: LastUsed,
    refusals: Refusals,
    confirmations: Confirmations,
    seats: Arc<Seats>,
    written: Written,
    people: People,
    readiness: Readiness,
    spread: Spread,
    unanswered: Unanswered,
    epoch_begun_at: AtomicU64,
    own: OnceLock<Arc<Certificates>>,
}

/// What a reload replaces.
struct Rules {
    settings: Arc<Settings>,
    limiter: Arc<Limiter>,
}

/// How long the plane takes no follower's word for it that its store was restored, after it did.
const EPOCH_REST: Duration = Duration::from_secs(60);

/// Puts all routes together, with the border around them.
pub fn router(app: App) -> Router {
    let engine = app.engine().clone();
    let proxies = app.settings().proxies.clone();
    let border = Border::new(proxies, engine.clock(), engine.chance());
    let health = health::routes(app.clone());
    let for_people = people::routes().merge(console::routes(&app));
    let routes = Router::new()
        .merge(beacon::routes())
        .merge(compat::routes())
        .merge(for_people.route_layer(from_fn_with_state(app.clone(), own_name)))
        .merge(api::routes(&app));
    // One layer: each layer on a route is copied with all beneath it when that one is asked.
    let layers = (around::layer(Arc::new(border)), around::layer(Sharing(app.clone())));
    answer_all(routes.with_state(app).merge(health)).layer(layers)
}

/// Lets nobody be signed in under a name that is not the plane's.
async fn own_name(State(app): State<App>, request: Request, next: Next) -> Response {
    let public_url = app.settings().public_url.clone();
    match host::check(&request, |name| public_url.host().eq_ignore_ascii_case(name)) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

impl App {
    /// Makes what the routes share.
    pub fn new(engine: Engine, settings: Settings, people: People) -> App {
        let limiter = Arc::new(Limiter::new(&settings.rates));
        let rules = RwLock::new(Rules { settings: Arc::new(settings), limiter });
        let spread = Spread(AtomicU64::new(engine.chance().number()));
        App(Arc::new(Parts {
            engine,
            rules,
            last_used: LastUsed::default(),
            refusals: Refusals::default(),
            confirmations: Confirmations::default(),
            seats: Arc::default(),
            written: Written::default(),
            people,
            readiness: Readiness::default(),
            spread,
            unanswered: Unanswered::default(),
            epoch_begun_at: AtomicU64::new(0),
            own: OnceLock::new(),
        }))
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// Takes over what can change while the daemon runs. The proxies are fixed with the border,
    /// and stay. New budgets begin full.
    pub fn reload(&self, new: Settings) {
        let mut rules = self.0.rules.write().unwrap_or_else(PoisonError::into_inner);
        let old = &rules.settings;
        let proxies = old.proxies.clone();
        if new.rates != old.rates {
            rules.limiter = Arc::new(Limiter::new(&new.rates));
        }
        rules.settings = Arc::new(Settings { proxies, ..new });
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.rules().settings)
    }

    pub(crate) fn limiter(&self) -> Arc<Limiter> {
        Arc::clone(&self.rules().limiter)
    }

    fn rules(&self) -> RwLockReadGuard<'_, Rules> {
        self.0.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn last_used(&self) -> &LastUsed {
        &self.0.last_used
    }

    /// Counts a refused request. Nobody but the audit learns of it, and not before
    /// [`App::record_refusals`].
    pub(crate) fn count_refusal(
        &self,
        who: Option<(OrgId, Actor)>,
        refusal: Refusal,
        source: IpAddr,
    ) {
        self.0.refusals.count(who, refusal, source, self.engine().now());
    }

    /// Writes what was counted since the last time into the audit: one record for each actor and
    /// kind of refusal. To be called once a minute. What cannot be written now is kept.
    pub async fn record_refusals(&self) {
        /// Most records under way at once, so that others get their turn.
        const AT_ONCE_MAX: usize = 64;
        let counted = self.0.refusals.take();
        for some in counted.chunks(AT_ONCE_MAX) {
            let submitted = some.iter().map(|one| self.engine().submit(one.order()));
            for (one, done) in some.iter().zip(join_all(submitted).await) {
                if let Err(error) = done {
                    tracing::debug!(%error, "refusals stay counted");
                    self.0.refusals.give_back(one);
                }
            }
        }
    }

    pub(crate) fn confirmations(&self) -> &Confirmations {
        &self.0.confirmations
    }

    pub(crate) fn unanswered(&self) -> &Unanswered {
        &self.0.unanswered
    }

    pub(crate) fn seats(&self) -> &Arc<Seats> {
        &self.0.seats
    }

    pub(crate) fn written(&self) -> &Written {
        &self.0.written
    }

    pub(crate) fn people(&self) -> &People {
        &self.0.people
    }

    pub(crate) fn readiness(&self) -> &Readiness {
        &self.0.readiness
    }

    /// Draws a number that is spread evenly and repeats no earlier one. Not a secret.
    pub(crate) fn spread(&self) -> u64 {
        self.0.spread.next()
    }

    /// Says whether a new epoch may begin on a follower's word; at most once in [`EPOCH_REST`].
    pub(crate) fn may_begin_epoch(&self, now: Timestamp) -> bool {
        let begun_at = &self.0.epoch_begun_at;
        let allow = |last: u64| {
            let rested = last + u64::try_from(EPOCH_REST.as_millis()).unwrap_or(u64::MAX);
            (last == 0 || rested <= now.unix_ms()).then_some(now.unix_ms())
        };
        begun_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, allow).is_ok()
    }

    /// Has the invitations of agents name the plane's `own` certificate, since nobody else vouches
    /// for it. For once, at the start.
    pub(crate) fn pin_to(&self, own: Arc<Certificates>) {
        drop(self.0.own.set(own));
    }

    /// How the plane is reached, with the pin of its own certificate as it is in use.
    pub(crate) fn plane(&self) -> Plane {
        let settings = self.settings();
        let pin = self.0.own.get().and_then(|own| own.pin());
        let pin = pin.map(|pin| invited_pin(&pin));
        Plane { url: settings.public_url.to_string(), pin, ttl: settings.ttl }
    }

    /// The URL of a path of this plane, as clients see it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.settings().public_url)
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("settings", &self.settings()).finish_non_exhaustive()
    }
}

/// Numbers for visits and for jitter. They need not be unknown, only different, so they cost no
/// call into the kernel on every heartbeat.
struct Spread(AtomicU64);

impl Spread {
    fn next(&self) -> u64 {
        // SplitMix64: a walk through all numbers, well mixed.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
