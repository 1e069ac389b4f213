//! The console in Chromium: by hand, by keyboard, and by axe-core's rules, on every page.

use std::collections::BTreeSet;
use std::sync::Arc;

use postern_controlplane::app::Settings;
use postern_controlplane::domain::{Command, MemberKind, Purpose, Role};
use postern_controlplane::server::{Certificates, Limits, Listener, Server, self_signed};
use postern_shared::ids::OrgId;
use postern_shared::time::Expiry;
use secrecy::ExposeSecret as _;
use tokio::sync::watch;

use crate::browser::{Browser, PASSWORD, Person, invite, join, next_step, ticket};
use crate::console::PAGES;
use crate::console_groups::Host;
use crate::look::{DESKTOP, PHONE};
use crate::window::Window;
use crate::world::{OFFICE, World, generous};

const ELSEWHERE: &str = "203.0.113.9";

/// A plane as browsers reach it, over TLS, and an admin of an org.
pub(crate) struct Plane {
    pub(crate) world: World,
    pub(crate) url: String,
    pub(crate) org: OrgId,
    pub(crate) zoe: Person,
    _stop: watch::Sender<bool>,
}

impl Plane {
    pub(crate) async fn start() -> Plane {
        let world = World::with(generous());
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let made = self_signed(&["localhost".to_owned()]).unwrap();
        std::fs::write(&key, made.key_pem.expose_secret()).unwrap();
        std::fs::write(&certificate, &made.certificate_pem).unwrap();
        let certificates = Arc::clone(&Certificates::load(&certificate, &key).unwrap());
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), Some(certificates)).unwrap();
        let port = listener.local_address().unwrap().port();
        let url = format!("https://localhost:{port}");
        let settings = Settings { public_url: url.parse().unwrap(), ..generous() };
        let server = Server::new(world.router.clone(), Limits::PUBLIC, settings.proxies.clone());
        world.app.reload(settings);
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(async move { server.serve(listener, stopped).await });
        let org = world.org("Acme Rockets").await;
        let zoe = join(&mut Browser::new(&world), org, "zoe@example.org", Role::Admin).await;
        Plane { world, url, org, zoe, _stop: stop }
    }

    /// A window in which Zoe has signed in by the page for it.
    pub(crate) async fn window(&self) -> Window {
        let window = Window::open_secured_at(OFFICE).await;
        self.sign_in(&window).await;
        window
    }

    async fn sign_in(&self, window: &Window) {
        next_step(&self.world);
        window.go(&format!("{}/", self.url)).await;
        window.says("Sign in").await;
        window.fill("#email", &self.zoe.email).await;
        window.fill("#password", PASSWORD).await;
        window.fill("#code", &self.zoe.code(&self.world, 0)).await;
        window.click("main button").await;
        window.says("Overview").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_signing_in_to_a_list_that_fills_and_empties_by_itself() {
    let plane = Plane::start().await;
    let window = plane.window().await;

    window.click("nav a[href='/console/groups']").await;
    window.says("There is no group yet.").await;
    window.fill("#name", "Web servers").await;
    window.click("main button").await;
    window.says("Nobody is let in just now.").await;
    window.click("nav a[href='/console/pairs']").await;
    window.says("There is no pair yet.").await;
    window.fill("#name", "Zoe's laptop").await;
    window.click("main form[method=post] button").await;
    window.says("What stands here is shown once.").await;
    let link = window.value("document.querySelector('.secret a').href").await;
    let link = link.as_str().unwrap();
    assert!(link.starts_with(&format!("{}/b/pob_", plane.url)), "{link}");
    let qr = "(() => { const it = document.querySelector('svg.qr').getBoundingClientRect(); \
              return it.width > 100 && it.width === it.height; })()";
    assert_eq!(window.value(qr).await, true, "the picture is there to be scanned");
    let address = window.value("location.href").await;
    assert_eq!(address, format!("{}/console/pairs", plane.url), "no secret is in it");
    window.click("a.button").await;
    window.says("It is in no group").await;
    window.click("form[action$='/groups'] button").await;
    window.holds("document.querySelector('main a[href=\"/console/groups/1\"]') !== null").await;
    window.click("main a[href='/console/groups/1']").await;
    window.says("Live: changes arrive by themselves.").await;
    window.value("window.stayed = true").await;

    let device = Window::open_secured_at(ELSEWHERE).await;
    device.go(link).await;
    device.says("This address is not on file.").await;
    device.click("main button").await;
    device.says("Your address is on file until ").await;

    let text = window.says(ELSEWHERE).await;
    assert!(text.contains("Zoe's laptop"), "{text}");
    let left = window.value("document.querySelector('[data-entry] .left').textContent").await;
    assert!(left.as_str().unwrap().starts_with("23 h 59 min"), "{left}");
    let said = "document.getElementById('said').textContent";
    assert_eq!(window.value(said).await, format!("Zoe's laptop is let in from {ELSEWHERE}."));
    let pair = *plane.world.engine.state().org(plane.org).unwrap().pairs.get(&1).unwrap();
    plane.world.order(Command::CloseAddresses { org: plane.org, pair }).await;
    window.says("Nobody is let in just now.").await;
    let gone = format!("Zoe's laptop is not let in from {ELSEWHERE} any more.");
    assert_eq!(window.value(said).await, gone);

    assert_eq!(window.value("window.stayed").await, true, "and it was loaded once");
    assert_eq!(window.complaints().await, Vec::<String>::new());
    assert_eq!(device.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_says_so_when_it_is_live_no_more() {
    let plane = Plane::start().await;
    plane.world.group(plane.org).await;
    let window = plane.window().await;
    window.go(&format!("{}/console/groups/1", plane.url)).await;
    window.says("Live: changes arrive by themselves.").await;

    plane.world.order(Command::SignOutEverywhere { user: plane.zoe.id }).await;

    window.says("Not live any more: load the page again.").await;
}

/// Records of every kind, with names and states of every kind.
pub(crate) async fn furnish(plane: &Plane) -> String {
    let Plane { world, org, .. } = plane;
    let (group, pair) = (world.group(*org).await, world.pair(*org, 3_600).await);
    world.member(*org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
    world.report(&pair, OFFICE).await;
    world.network(*org, group, "203.0.113.0/24").await;
    world.network(*org, group, "2001:db8:aaaa:bbbb::/64").await;
    let (first, second) = (Host::of(world, *org, group).await, Host::of(world, *org, group).await);
    first.say(group, "applied").await;
    second.say(group, "failed").await;
    Host::of(world, *org, group).await;
    world.group(*org).await;
    world.pair(*org, 60).await;
    world.key(*org).await;
    invite(world, *org, "max@example.org", Role::Member).await;
    format!("{}/b/{}", plane.url, pair.bookmark.expose())
}

/// Holds the page that is shown to axe-core's rules, on each screen and in both colours.
pub(crate) async fn hold(window: &Window, name: &str, faults: &mut Vec<String>) {
    for screen in [PHONE, DESKTOP] {
        for colours in ["light", "dark"] {
            window.show_on(screen, colours).await;
            let place = format!("{name} ({}, {colours})", screen.name);
            let found = window.violations().await;
            faults.extend(found.into_iter().map(|fault| format!("{place}: {fault}")));
            if window.is_too_wide().await {
                faults.push(format!("{place}: wider than the screen"));
            }
            window.keep_picture(&format!("{name}-{}-{colours}", screen.name)).await;
        }
    }
}

/// What pages of one kind have in common: their path without what names a record.
fn kind(path: &str) -> String {
    let is_name = |part: &str| part.len() == 36 || part.parse::<u64>().is_ok();
    let parts = path.split('/').map(|part| if is_name(part) { "*" } else { part });
    parts.collect::<Vec<&str>>().join("/")
}

/// Holds every page that links lead to, as far as it is one of `parts`; of pages that show other
/// records of one kind, one is enough.
async fn hold_linked(plane: &Plane, window: &Window, parts: &[&str], faults: &mut Vec<String>) {
    const LINKS: &str = "[...document.querySelectorAll('a[href]:not([download])')]\
        .filter((it) => it.origin === location.origin).map((it) => it.pathname)";
    let is_wanted = |path: &str| {
        let is_within = |part: &&&str| {
            let rest = path.strip_prefix(**part);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        parts.iter().any(|part| is_within(&part))
    };
    let mut ahead: Vec<String> = parts.iter().map(ToString::to_string).collect();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    while let Some(path) = ahead.pop() {
        if !seen.insert(kind(&path)) {
            continue;
        }
        window.go(&format!("{}{path}", plane.url)).await;
        window.value(UNFOLD).await;
        hold(window, path.trim_start_matches('/').replace('/', "-").as_str(), faults).await;
        let found = window.value(LINKS).await;
        let found = found.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned());
        ahead.extend(found.filter(|path| is_wanted(path)));
    }
    assert!(parts.len() < seen.len(), "{seen:?}");
}

const UNFOLD: &str = "document.querySelectorAll('details').forEach((it) => { it.open = true; })";

async fn without_faults(window: &Window, faults: &[String]) {
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let complaints = window.complaints().await;
    let is_expected = |told: &String| told.contains("422") || told.contains("404");
    let complaints: Vec<&String> = complaints.iter().filter(|told| !is_expected(told)).collect();
    assert_eq!(complaints, Vec::<&String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_groups_and_pairs_keep_axe_cores_rules_on_each_screen_in_both_colours() {
    let plane = Plane::start().await;
    let window = plane.window().await;
    let mut faults = Vec::new();

    hold(&window, "console-empty", &mut faults).await;
    furnish(&plane).await;
    hold_linked(&plane, &window, &["/console/groups", "/console/pairs"], &mut faults).await;
    let others = [
        "/console",
        "/console/nothing",
        "/console/pairs?find=nobody",
        "/console/groups/1",
        "/console/groups/2",
        "/console/pairs/1",
    ];
    for path in others {
        window.go(&format!("{}{path}", plane.url)).await;
        let name = path.trim_start_matches('/').replace(['/', '?', '='], "-");
        hold(&window, &name, &mut faults).await;
    }
    window.go(&format!("{}/console/pairs", plane.url)).await;
    window.fill("#name", " ").await;
    window.fill("#ttl", "soon").await;
    window.click("main form[method=post] button").await;
    window.says("write a span of time").await;
    hold(&window, "pairs-wrong", &mut faults).await;
    window.fill("#name", "Telephone").await;
    window.fill("#ttl", "").await;
    window.click("main form[method=post] button").await;
    window.says("What stands here is shown once.").await;
    hold(&window, "pair-secrets", &mut faults).await;

    without_faults(&window, &faults).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_hosts_and_keys_keep_axe_cores_rules_on_each_screen_in_both_colours() {
    let plane = Plane::start().await;
    furnish(&plane).await;
    let window = plane.window().await;
    let mut faults = Vec::new();

    hold_linked(&plane, &window, &["/console/agents", "/console/keys"], &mut faults).await;
    window.go(&format!("{}/console/agents", plane.url)).await;
    window.fill("#name", "web-9").await;
    window.click("input[name=group-1]").await;
    window.click("main form[method=post] button").await;
    window.says("never again").await;
    hold(&window, "agent-invited", &mut faults).await;
    next_step(&plane.world);
    window.go(&format!("{}/console/keys", plane.url)).await;
    window.fill("#name", "backup").await;
    window.click("input[name='scope-groups.read']").await;
    window.click("input[name=lock][value=new]").await;
    window.fill("#code", &plane.zoe.code(&plane.world, 0)).await;
    window.click("main form[method=post] button").await;
    window.says("never again").await;
    hold(&window, "key-minted", &mut faults).await;

    without_faults(&window, &faults).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_other_pages_keep_axe_cores_rules_on_each_screen_in_both_colours() {
    const HELD: [&str; 5] =
        ["/console", "/console/groups", "/console/pairs", "/console/agents", "/console/keys"];
    let plane = Plane::start().await;
    furnish(&plane).await;
    let window = plane.window().await;
    let mut faults = Vec::new();

    let others = PAGES.iter().copied().filter(|path| !HELD.contains(path));
    let others: Vec<&str> = others.chain(["/account"]).collect();
    hold_linked(&plane, &window, &others, &mut faults).await;

    without_faults(&window, &faults).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_for_strangers_keep_axe_cores_rules_too() {
    let plane = Plane::start().await;
    let bookmark = furnish(&plane).await;
    let world = &plane.world;
    let (_, invitation) = invite(world, plane.org, "eve@example.org", Role::Member).await;
    let zoe = world.engine.state().user(plane.zoe.id).unwrap().clone();
    let (reset, reset_path, _) = ticket(world, &zoe, Purpose::Reset);
    world.order(Command::RequestReset(reset)).await;
    let window = Window::open_secured_at(ELSEWHERE).await;
    let mut faults = Vec::new();

    for (name, url) in [
        ("sign-in", format!("{}/sign-in", plane.url)),
        ("reset", format!("{}/reset", plane.url)),
        ("reset-link", format!("{}{reset_path}", plane.url)),
        ("welcome", format!("{}{invitation}", plane.url)),
        ("welcome-unknown", format!("{}/welcome/unknown", plane.url)),
        ("bookmark-unknown", format!("{}/b/unknown", plane.url)),
        ("bookmark", bookmark),
    ] {
        window.go(&url).await;
        hold(&window, name, &mut faults).await;
    }
    window.click("main button").await;
    window.says("Open on 0 of 3").await;
    hold(&window, "reported", &mut faults).await;
    window.go(&format!("{}/sign-in", plane.url)).await;
    window.fill("#email", "nobody@example.org").await;
    window.fill("#password", "wrong").await;
    window.fill("#code", "000000").await;
    window.click("main button").await;
    window.says("That did not work.").await;
    hold(&window, "sign-in-wrong", &mut faults).await;

    assert_eq!(faults, Vec::<String>::new(), "{}", faults.join("\n"));
}

/// All controls that are shown, in the order of the page; radio buttons are one with those that are
/// chosen between.
const CONTROLS: &str = "[...document.querySelectorAll('a[href], button, input, select, textarea, summary')]\
    .filter((it) => it.type !== 'hidden' && it.checkVisibility())\
    .filter((it) => it.type !== 'radio' || it.checked)";

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_reaches_every_control_in_its_order_and_shows_where_it_is() {
    let plane = Plane::start().await;
    furnish(&plane).await;
    let window = plane.window().await;
    window.show_on(DESKTOP, "light").await;

    for path in [
        "/console",
        "/console/groups",
        "/console/groups/1",
        "/console/pairs",
        "/console/pairs/1",
        "/console/keys",
    ] {
        window.go(&format!("{}{path}", plane.url)).await;
        window.holds("document.readyState === 'complete'").await;
        let count = window.value(&format!("{CONTROLS}.length")).await.as_u64().unwrap();
        assert!(5 < count, "{path}: {count}");
        for nth in 0..count {
            window.press_tab().await;
            let here = format!("{CONTROLS}.indexOf(document.activeElement)");
            let what = window.value("document.activeElement.outerHTML.slice(0, 200)").await;
            assert_eq!(window.value(&here).await, nth, "{path}: {what}");
            let ring = "(() => { const it = getComputedStyle(document.activeElement); \
                        return it.outlineStyle !== 'none' && parseFloat(it.outlineWidth) >= 2; })()";
            assert_eq!(window.value(ring).await, true, "{path}: {what} shows no focus");
        }
    }
}
