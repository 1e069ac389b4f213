//! Signing in and what goes with it, by browsers without script.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use postern_controlplane::app::Settings;
use postern_controlplane::domain::{
    Actor, Command, Credentials, Factor, Login, Order, Purpose, Role, step_at,
};
use postern_controlplane::http::limit::{Budget, RateLimits};
use postern_controlplane::store::{MemoryStore, Options, RedbStore};
use postern_shared::ids::Epoch;
use postern_shared::token::TokenKind;
use reqwest::Method;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::browser::{
    Browser, LOGIN, PASSWORD, Page, Person, code, invite, join, next_step, ticket,
};
use crate::world::{OFFICE, World, generous, settings, within};

/// A world with one admin, signed in in `browser`.
macro_rules! peopled {
    ($world:ident, $browser:ident, $admin:ident) => {
        let $world = World::with(generous());
        let org = $world.org("acme").await;
        let mut $browser = Browser::new(&$world);
        let $admin = join(&mut $browser, org, "zoe@example.org", Role::Admin).await;
    };
}

#[tokio::test]
async fn codes_of_the_reference_are_those_of_rfc_6238() {
    let at = |secs: u64| postern_shared::time::Timestamp::from_unix_ms(secs * 1_000).unwrap();
    for (secs, expected) in [
        (59, "287082"),
        (1_111_111_109, "081804"),
        (1_234_567_890, "005924"),
        (20_000_000_000, "353130"),
    ] {
        assert_eq!(code(b"12345678901234567890", at(secs), 0), expected);
    }
}

#[tokio::test]
async fn an_invitation_leads_to_an_account_and_works_once() {
    let world = World::with(generous());
    let org = world.org("acme <b>").await;
    let (_, path) = invite(&world, org, "zoe@example.org", Role::Member).await;
    let mut browser = Browser::new(&world);

    let page = browser.get(&path).await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("Welcome to acme &#60;b&#62;"), "{}", page.text);
    assert!(page.text.contains("<svg") && page.text.contains("zoe@example.org"));
    let (seed, sealed) = (page.seed(), page.field("seed").unwrap().to_owned());
    assert_eq!(seed.len(), 20);
    let now = world.engine.now();
    let mut send = async |fields: &[(&str, &str)]| {
        let all = [&[("seed", &*sealed)], fields].concat();
        browser.post(&path, &all).await
    };
    let good = code(&seed, now, 0);
    for (password, again, shown, told) in [
        ("short", "short", &*good, "too short"),
        (PASSWORD, "correct horse battery stable", &good, "not the same"),
        (PASSWORD, PASSWORD, "000000", "not the one"),
        (PASSWORD, PASSWORD, &code(&seed, now, 2), "not the one"),
    ] {
        let fields = [("password", password), ("again", again), ("code", shown)];
        let refused = send(&fields).await;
        assert_eq!(refused.status, 422);
        assert!(refused.text.contains(told), "{}", refused.text);
        assert_eq!(refused.seed(), seed, "nobody has to scan again");
        assert!(!refused.text.contains(PASSWORD));
    }
    let fields = [("password", PASSWORD), ("again", PASSWORD), ("code", &*good)];
    let accepted = send(&fields).await;
    assert_eq!(accepted.status, 200, "{}", accepted.text);
    let codes: BTreeSet<String> = accepted.recovery_codes().into_iter().collect();
    assert_eq!(codes.len(), 10);
    let again = send(&fields).await;
    assert_eq!(again.status, 404);
    assert_eq!(browser.get(&path).await.status, 404);

    let account = browser.get("/account").await;
    assert_eq!(account.status, 200);
    for part in
        ["zoe@example.org, member of acme &#60;b&#62;", "10 left", "(this one)", "Lynx &#60;b&#62;"]
    {
        assert!(account.text.contains(part), "{part}: {}", account.text);
    }
}

#[tokio::test]
async fn a_seed_of_somebodys_own_making_is_refused() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let (_, first) = invite(&world, org, "zoe@example.org", Role::Member).await;
    let (_, second) = invite(&world, org, "max@example.org", Role::Member).await;
    let mut browser = Browser::new(&world);
    let page = browser.get(&first).await;
    let (seed, sealed) = (page.seed(), page.field("seed").unwrap());
    let shown = code(&seed, world.engine.now(), 0);
    let fields = [("password", PASSWORD), ("again", PASSWORD), ("code", &*shown)];

    for text in ["", "AAAA", sealed] {
        let all = [&fields[..], &[("seed", text)]].concat();
        assert_eq!(browser.post(&second, &all).await.status, 403, "sealed for another link");
    }
}

#[tokio::test]
async fn password_and_code_sign_in_and_each_alone_does_not() {
    peopled!(world, browser, zoe);
    next_step(&world);
    let mut elsewhere = Browser::at(&world, "203.0.113.9");
    let shown = zoe.code(&world, 0);
    let wrong = Person { password: "correct horse battery stable".to_owned(), ..zoe.clone() };

    let mut told = BTreeSet::new();
    for (person, code) in
        [(&wrong, &*shown), (&zoe, "000000"), (&zoe, ""), (&wrong, "AAAAA-AAAAA-AAAAA-AAAAA")]
    {
        let refused = elsewhere.sign_in(person, code).await;
        assert_eq!(refused.status, 403);
        told.insert(refused.text);
        assert!(!elsewhere.is_signed_in().await);
    }
    assert_eq!(told.len(), 1, "which of them was wrong is not told");
    let done = elsewhere.sign_in(&zoe, &shown).await;
    assert_eq!((done.status, done.header("location")), (303, "/console"));
    assert!(elsewhere.is_signed_in().await && browser.is_signed_in().await);
    let account = browser.get("/account").await;
    assert!(account.text.contains("203.0.113.9"), "the owner sees from where: {}", account.text);
    let replayed = Browser::new(&world).sign_in(&zoe, &shown).await;
    assert_eq!(replayed.status, 403, "the code is used up");
    let spare = Browser::new(&world).sign_in(&zoe, &zoe.recovery[0].to_lowercase()).await;
    assert_eq!(spare.status, 303);
    let spare = Browser::new(&world).sign_in(&zoe, &zoe.recovery[0]).await;
    assert_eq!(spare.status, 403, "and so is the recovery code");
}

#[tokio::test]
async fn unknown_accounts_answer_as_known_ones_do() {
    peopled!(world, browser, zoe);
    drop(browser);
    let (_, _) = invite(&world, zoe.org, "invited@example.org", Role::Member).await;
    let removed =
        join(&mut Browser::new(&world), zoe.org, "removed@example.org", Role::Member).await;
    world.order(Command::RemoveUser { org: zoe.org, user: removed.id }).await;
    let mut told = BTreeSet::new();

    // More tries than an account takes: one that is locked answers as the others do.
    for round in 0..8 {
        for email in [&*zoe.email, "nobody@example.org", "invited@example.org", &removed.email, "?"]
        {
            let person = Person { email: email.to_owned(), ..zoe.clone() };
            let answer = Browser::new(&world).sign_in(&person, "000000").await;
            let names: BTreeSet<String> =
                answer.headers.keys().map(|name| name.to_string()).collect();
            let proof = answer.field("proof").unwrap().to_owned();
            let text = answer.text.replace(email, "EMAIL").replace(&proof, "PROOF");
            told.insert((answer.status, names, text));
            assert_eq!(told.len(), 1, "{email}, round {round}: {told:#?}");
        }
    }
    next_step(&world);
    let locked = Browser::new(&world).sign_in(&zoe, &zoe.code(&world, 0)).await;
    assert_eq!(locked.status, 403, "the account takes no tries from strangers now");

    world.app.record_refusals().await;
    let key = world.key(zoe.org).await;
    let counted = "/api/v1/account/audit?kind=requests_refused&actor=unknown";
    let counted = world.holder(&key, OFFICE).data(counted).await;
    let counts = counted.as_array().unwrap().iter().map(|record| {
        let details = &record["details"];
        (details["refusal"].as_str().unwrap(), details["count"].as_u64().unwrap())
    });
    let counts: BTreeSet<(&str, u64)> = counts.collect();
    // Of nine tries for the account, and eight for the one whose invitation is not yet used.
    assert_eq!(counts, BTreeSet::from([("rate_limited", 4), ("wrong_secret", 8)]));
}

#[tokio::test]
async fn strangers_shut_nobody_out_of_a_known_browser_and_nobody_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.redb");
    let store = RedbStore::create(&file, Epoch::from_random([1; 16]), Options::default()).unwrap();
    let world = World::on(Box::new(store), generous());
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    let zoe = join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    for _ in 0..10 {
        Browser::at(&world, "192.0.2.1").sign_in(&zoe, "000000").await;
    }
    next_step(&world);
    let mut known = browser.clone();
    known.cookies.remove(LOGIN);
    let cookies = known.cookies.clone();

    assert_eq!(Browser::new(&world).sign_in(&zoe, &zoe.code(&world, 0)).await.status, 403);
    assert_eq!(known.sign_in(&zoe, &zoe.code(&world, 0)).await.status, 303);
    // A restart forgets nothing.
    world.engine.stop().await;
    world.stop();
    let mut stopped = world.engine.watch_stopped();
    stopped.wait_for(Option::is_some).await.unwrap();
    let now = world.engine.now();
    let store = loop {
        // The writer's thread lets go of the file as it ends.
        match RedbStore::open(&file, Options::default()) {
            Ok(store) => break store,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let again = World::on(Box::new(store), generous());
    let ahead = now.since(again.engine.now());
    again.clock.advance(ahead);
    let refused = Browser::new(&again).sign_in(&zoe, &zoe.code(&again, 1)).await;
    assert_eq!(refused.status, 403, "the tries are still counted");
    let mut known = Browser::new(&again);
    known.cookies = cookies;
    assert_eq!(known.sign_in(&zoe, &zoe.code(&again, 1)).await.status, 303);
    again.clock.advance(Duration::from_secs(3_600));
    let late = Browser::new(&again).sign_in(&zoe, &zoe.code(&again, 0)).await;
    assert_eq!(late.status, 303, "an hour is the longest that strangers can cost");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_500_sign_ins_with_one_code_at_once_one_wins() {
    peopled!(world, browser, zoe);
    next_step(&world);
    let before = world.engine.state().logins_of(zoe.id, world.engine.now()).len();
    let form = browser.get("/sign-in").await;
    let shown = zoe.code(&world, 0);
    let fields = [
        ("proof", form.field("proof").unwrap()),
        ("email", &*zoe.email),
        ("password", &*zoe.password),
        ("code", &*shown),
    ];

    let mut crowd = JoinSet::new();
    for _ in 0..500 {
        let request = browser.unplugged("/sign-in", &fields);
        crowd.spawn(world.router.clone().oneshot(request));
    }
    let answers: Vec<StatusCode> =
        crowd.join_all().await.into_iter().map(|answer| answer.unwrap().status()).collect();

    let count = |status: StatusCode| answers.iter().filter(|answer| **answer == status).count();
    assert_eq!(count(StatusCode::SEE_OTHER), 1, "{answers:?}");
    let others = count(StatusCode::FORBIDDEN) + count(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(others, 499, "{answers:?}");
    // The browser's own login was replaced by the new one.
    assert_eq!(world.engine.state().logins_of(zoe.id, world.engine.now()).len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_500_orders_with_one_step_at_once_one_wins() {
    peopled!(world, _browser, zoe);
    next_step(&world);
    let account = world.engine.state().account(zoe.id).unwrap().clone();
    let now = world.engine.now();
    let factor = Factor::Code {
        seed: account.authenticator.unwrap().seed,
        step: step_at(now),
        resealed: None,
    };
    let credentials = Credentials { password: account.password.unwrap(), factor, is_known: true };

    let mut crowd = JoinSet::new();
    for _ in 0..500 {
        let login = Login {
            hash: world.engine.chance().token(TokenKind::Login).hash(),
            user: zoe.id,
            org: zoe.org,
            created_at: now,
            used_at: now,
            address: [203, 0, 113, 7].into(),
            browser: String::new(),
        };
        let credentials = Box::new(credentials.clone());
        let command = Command::SignIn { credentials, login: Box::new(login), replaces: None };
        let order = Order { actor: Actor::User(zoe.id), source: None, command };
        let engine = world.engine.clone();
        crowd.spawn(async move { engine.submit(order).await.is_ok() });
    }

    let won = crowd.join_all().await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);
    assert_eq!(world.engine.state().logins_of(zoe.id, now).len(), 2, "and the invitation's");
}

#[tokio::test]
async fn looking_at_links_and_pages_changes_nothing() {
    peopled!(world, browser, zoe);
    let (user, invitation) = invite(&world, zoe.org, "max@example.org", Role::Member).await;
    let (reset, reset_path, _) = {
        let user = world.engine.state().user(zoe.id).unwrap().clone();
        ticket(&world, &user, Purpose::Reset)
    };
    world.order(Command::RequestReset(reset)).await;
    let seen = || {
        let state = world.engine.state();
        format!("{:?}", (state.user_row(zoe.id), state.user_row(user.id), state.org(zoe.org)))
    };
    let before = seen();

    for path in [
        &*invitation,
        &reset_path,
        "/sign-in",
        "/reset",
        "/account",
        "/account/password",
        "/account/authenticator",
        "/account/recovery-codes",
    ] {
        for method in [Method::GET, Method::HEAD] {
            let page = browser.send(browser.request(method.clone(), path)).await;
            assert_eq!(page.status, 200, "{method} {path}");
        }
    }
    for path in ["/sign-out", "/account/sign-out-everywhere", "/account/logins/end"] {
        assert_eq!(browser.get(path).await.status, 405, "{path}");
    }
    assert_eq!(seen(), before);
    assert!(browser.is_signed_in().await);
}

#[tokio::test]
async fn pages_are_private_and_need_nothing_from_elsewhere() {
    peopled!(world, browser, zoe);
    let (_, invitation) = invite(&world, zoe.org, "max@example.org", Role::Member).await;

    for (path, policy) in [
        (&*invitation, "no-referrer"),
        ("/welcome/nothing", "no-referrer"),
        ("/sign-in", "same-origin"),
        ("/reset", "same-origin"),
        ("/account", "same-origin"),
        ("/account/password", "same-origin"),
        ("/account/authenticator", "same-origin"),
        ("/account/recovery-codes", "same-origin"),
    ] {
        let page = browser.get(path).await;
        assert_eq!(page.header("cache-control"), "no-store", "{path}");
        assert_eq!(page.header("referrer-policy"), policy, "{path}");
        assert_eq!(page.header("x-content-type-options"), "nosniff", "{path}");
        let csp = page.header("content-security-policy");
        assert!(csp.starts_with("default-src 'none'; style-src 'sha256-"), "{path}: {csp}");
        for part in ["form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"] {
            assert!(csp.contains(part), "{path}: {csp}");
        }
        for foreign in ["<script", "http:", "https:", "src=", "style=", "@import", "url("] {
            assert!(!page.text.contains(foreign), "{path} holds {foreign}");
        }
        assert!(page.text.contains("<html lang=\"en\">") && page.text.contains("<h1>"), "{path}");
        assert!(page.text.contains("width=device-width"), "{path}");
        // Every field that is seen has a label of its own.
        for field in
            page.text.split("<input ").skip(1).filter(|rest| !rest.contains("type=\"hidden\""))
        {
            let id = field.split("id=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
            assert!(page.text.contains(&format!("<label for=\"{id}\">")), "{path}: {id}");
        }
    }
}

#[tokio::test]
async fn nobody_is_signed_in_under_a_name_that_is_not_the_planes() {
    peopled!(world, browser, zoe);
    let signed_in = browser.clone();
    let asked = async |host: &str, path: &str| {
        let request = signed_in.request(Method::GET, path).header("host", host);
        within(request.send()).await.unwrap().status().as_u16()
    };

    assert_eq!(asked("plane.example", "/account").await, 200);
    assert_eq!(asked("192.0.2.9:8443", "/account").await, 200, "an address cannot be rebound");
    for path in ["/account", "/sign-in", "/reset"] {
        assert_eq!(asked("rebound.example", path).await, 421, "{path}");
    }
    let proof = browser.get("/account").await.field("proof").unwrap().to_owned();
    let form = browser.request(Method::POST, "/sign-out").header("host", "rebound.example");
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(browser.send(form.body(format!("proof={proof}"))).await.status, 421);
    assert!(browser.is_signed_in().await, "nothing happened to {}", zoe.email);
    assert_eq!(asked("inner.example", "/api/v1/account").await, 401, "programs bring a secret");
}

#[tokio::test]
async fn forms_from_elsewhere_are_refused() {
    peopled!(world, browser, zoe);
    let mut other = Browser::new(&world);
    let _max = join(&mut other, zoe.org, "max@example.org", Role::Member).await;
    let mine = browser.get("/account").await.field("proof").unwrap().to_owned();
    let theirs = other.get("/account").await.field("proof").unwrap().to_owned();
    let login = browser.cookies[LOGIN].clone();
    assert!(!mine.contains(&login[4..20]), "the cookie cannot be told from the proof");
    let path = "/account/sign-out-everywhere";
    const FORM: &str = "application/x-www-form-urlencoded";

    for (name, headers, proof, media_type, status) in [
        ("no proof", vec![("sec-fetch-site", "same-origin")], "", FORM, 403),
        ("another's proof", vec![("sec-fetch-site", "same-origin")], &*theirs, FORM, 403),
        ("another site", vec![("sec-fetch-site", "cross-site")], &mine, FORM, 403),
        ("a neighbour", vec![("sec-fetch-site", "same-site")], &mine, FORM, 403),
        ("an address bar", vec![("sec-fetch-site", "none")], &mine, FORM, 403),
        ("another origin", vec![("origin", "https://evil.example")], &mine, FORM, 403),
        ("a sandbox", vec![("origin", "null")], &mine, FORM, 403),
        ("another port", vec![("origin", "https://plane.example:8443")], &mine, FORM, 403),
        ("another kind", vec![("sec-fetch-site", "same-origin")], &mine, "text/plain", 415),
    ] {
        let mut request = browser.request(Method::POST, path).header("content-type", media_type);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let refused = browser.send(request.body(format!("proof={proof}"))).await;
        assert_eq!(refused.status, status, "{name}: {}", refused.text);
        assert!(browser.is_signed_in().await, "{name}");
    }
    let twice = format!("proof={mine}&proof={mine}");
    let request = browser.request(Method::POST, path).header("content-type", FORM).body(twice);
    assert_eq!(browser.send(request).await.status, 400);
    let request = browser.request(Method::POST, path).header("content-type", FORM);
    let ours = request.header("origin", "https://plane.example").body(format!("proof={mine}"));
    assert_eq!(browser.send(ours).await.status, 303);
    assert!(!browser.is_signed_in().await);
}

#[tokio::test]
async fn nobody_is_signed_in_by_a_form_that_another_browser_was_given() {
    peopled!(world, browser, zoe);
    drop(browser);
    next_step(&world);
    let mut thief = Browser::new(&world);
    let form = thief.get("/sign-in").await;
    let shown = zoe.code(&world, 0);
    let fields = [
        ("proof", form.field("proof").unwrap()),
        ("email", &*zoe.email),
        ("password", &*zoe.password),
        ("code", &*shown),
    ];

    let refused = Browser::new(&world).post("/sign-in", &fields).await;

    assert_eq!(refused.status, 403, "the proof is the thief's own");
    assert!(refused.text.contains("not from a page of this plane"), "{}", refused.text);
    assert_eq!(thief.post("/sign-in", &fields).await.status, 303);
}

#[tokio::test]
async fn a_login_is_new_after_each_sign_in_and_none_is_adopted() {
    peopled!(world, browser, zoe);
    let first = browser.cookies[LOGIN].clone();
    let planted = world.engine.chance().token(TokenKind::Login).expose().to_owned();
    next_step(&world);

    browser.sign_in(&zoe, &zoe.code(&world, 0)).await;
    let second = browser.cookies[LOGIN].clone();
    assert_ne!(first, second);
    let mut old = browser.clone();
    old.cookies.insert(LOGIN.to_owned(), first);
    assert!(!old.is_signed_in().await, "what the browser had before is worth nothing");

    next_step(&world);
    let mut victim = Browser::new(&world);
    victim.cookies.insert(LOGIN.to_owned(), planted.clone());
    victim.sign_in(&zoe, &zoe.code(&world, 0)).await;
    assert_ne!(victim.cookies[LOGIN], planted);
    let mut thief = Browser::new(&world);
    for (name, value) in [(LOGIN, &planted), (LOGIN, &zoe.recovery[0])] {
        thief.cookies.insert(name.to_owned(), value.clone());
        assert!(!thief.is_signed_in().await);
    }
}

#[tokio::test]
async fn a_user_sees_and_ends_logins_one_by_one_or_all() {
    peopled!(world, browser, zoe);
    let mut others = Vec::new();
    for address in ["203.0.113.1", "203.0.113.2"] {
        next_step(&world);
        let mut other = Browser::at(&world, address);
        assert_eq!(other.sign_in(&zoe, &zoe.code(&world, 0)).await.status, 303);
        others.push(other);
    }
    let account = browser.get("/account").await;
    let proof = account.field("proof").unwrap();
    let entry = account.text.split("<li>").find(|entry| entry.contains("203.0.113.1")).unwrap();
    let name = entry.split_once("name=\"login\" value=\"").unwrap().1.split('"').next().unwrap();

    let ended = browser.post("/account/logins/end", &[("proof", proof), ("login", name)]).await;
    assert_eq!(ended.status, 303);
    assert!(!others[0].is_signed_in().await && others[1].is_signed_in().await);
    let done = browser.post("/account/sign-out-everywhere", &[("proof", proof)]).await;
    assert_eq!((done.status, done.header("location")), (303, "/sign-in"));
    assert!(!browser.cookies.contains_key(LOGIN));
    assert!(!others[1].is_signed_in().await);
    next_step(&world);
    browser.sign_in(&zoe, &zoe.code(&world, 0)).await;
    let proof = browser.get("/account").await.field("proof").unwrap().to_owned();
    let kept = browser.clone();
    browser.post("/sign-out", &[("proof", &proof)]).await;
    assert!(!kept.clone().is_signed_in().await, "the login is gone, not only the cookie");
}

#[tokio::test]
async fn who_is_removed_or_demoted_is_out_with_the_next_request() {
    peopled!(world, browser, zoe);
    let mut other = Browser::new(&world);
    let max = join(&mut other, zoe.org, "max@example.org", Role::Admin).await;

    world.order(Command::SetRole { org: zoe.org, user: max.id, role: Role::Member }).await;
    assert!(!other.is_signed_in().await);
    next_step(&world);
    assert_eq!(other.sign_in(&max, &max.code(&world, 0)).await.status, 303);
    world.order(Command::RemoveUser { org: zoe.org, user: max.id }).await;
    let led = other.get("/account").await;
    assert_eq!((led.status, led.header("location")), (303, "/sign-in"));
    next_step(&world);
    assert_eq!(other.sign_in(&max, &max.code(&world, 0)).await.status, 403);
    assert!(browser.is_signed_in().await);
}

#[tokio::test]
async fn a_login_lasts_twelve_idle_hours() {
    peopled!(world, browser, _zoe);
    world.clock.advance(Duration::from_secs(11 * 3_600));
    assert!(browser.is_signed_in().await);
    world.clock.advance(Duration::from_secs(11 * 3_600));
    assert!(browser.is_signed_in().await, "each use counts");
    world.clock.advance(Duration::from_secs(12 * 3_600));
    assert!(!browser.is_signed_in().await);
}

#[tokio::test]
async fn a_user_changes_password_authenticator_and_recovery_codes() {
    peopled!(world, browser, zoe);
    next_step(&world);
    let mut other = Browser::new(&world);
    other.sign_in(&zoe, &zoe.code(&world, 0)).await;
    let new = "another horse battery staple";
    let change = async |browser: &mut Browser<'_>, current: &str, code: &str| -> Page {
        let fields = [("current", current), ("password", new), ("again", new), ("code", code)];
        browser.fill_in("/account/password", "/account/password", &fields).await
    };

    assert_eq!(change(&mut browser, PASSWORD, "000000").await.status, 422);
    next_step(&world);
    let used = zoe.code(&world, 0);
    assert_eq!(change(&mut browser, new, &used).await.status, 422);
    assert_eq!(change(&mut browser, PASSWORD, &used).await.status, 303);
    assert!(browser.is_signed_in().await && !other.is_signed_in().await);
    let zoe = Person { password: new.to_owned(), ..zoe };

    let page = browser.get("/account/authenticator").await;
    let seed = page.seed();
    next_step(&world);
    let (old, fresh) = (zoe.code(&world, 0), code(&seed, world.engine.now(), 0));
    let proof = page.field("proof").unwrap();
    let sealed = page.field("seed").unwrap();
    let replace = async |browser: &mut Browser<'_>, old: &str, new: &str| {
        let fields = [("proof", proof), ("seed", sealed), ("code", old), ("new-code", new)];
        browser.post("/account/authenticator", &fields).await.status
    };
    assert_eq!(replace(&mut browser, &old, "000000").await, 422);
    assert_eq!(replace(&mut browser, &fresh, &fresh).await, 422, "the present one is asked");
    assert_eq!(replace(&mut browser, &old, &fresh).await, 303);
    next_step(&world);
    assert_eq!(other.sign_in(&zoe, &zoe.code(&world, 0)).await.status, 403);
    let zoe = Person { seed, ..zoe };
    assert_eq!(other.sign_in(&zoe, &zoe.code(&world, 0)).await.status, 303);

    next_step(&world);
    let shown = zoe.code(&world, 0);
    let path = "/account/recovery-codes";
    let codes = browser.fill_in(path, path, &[("code", &shown)]).await.recovery_codes();
    assert_eq!(codes.len(), 10);
    assert_eq!(other.sign_in(&zoe, &zoe.recovery[0]).await.status, 403);
    assert_eq!(other.sign_in(&zoe, &codes[0]).await.status, 303);
}

#[tokio::test]
async fn a_browser_is_known_under_the_password_that_it_signed_in_with_only() {
    peopled!(world, browser, zoe);
    let mut stolen = browser.clone();
    stolen.cookies.remove(LOGIN);
    let new = "another horse battery staple";
    next_step(&world);
    let shown = zoe.code(&world, 0);
    let fields = [("current", PASSWORD), ("password", new), ("again", new), ("code", &*shown)];
    browser.fill_in("/account/password", "/account/password", &fields).await;
    let zoe = Person { password: new.to_owned(), ..zoe };
    for _ in 0..9 {
        Browser::at(&world, "192.0.2.1").sign_in(&zoe, "000000").await;
    }

    next_step(&world);
    let shown = zoe.code(&world, 0);
    assert_eq!(stolen.sign_in(&zoe, &shown).await.status, 403, "a stranger like any other");
    browser.cookies.remove(LOGIN);
    assert_eq!(browser.sign_in(&zoe, &shown).await.status, 303);
}

#[tokio::test]
async fn recovery_by_the_operator_replaces_password_and_authenticator() {
    peopled!(world, browser, zoe);
    let user = world.engine.state().user(zoe.id).unwrap().clone();
    let (recovery, path, _) = ticket(&world, &user, Purpose::Recovery);
    world.order(Command::Recover(recovery)).await;
    assert!(browser.is_signed_in().await);
    let mut found = Browser::new(&world);
    let page = found.get(&path).await;
    let (seed, sealed) = (page.seed(), page.field("seed").unwrap());
    let shown = code(&seed, world.engine.now(), 0);
    let new = "a horse of another colour";
    let fields = [("seed", sealed), ("password", new), ("again", new), ("code", &*shown)];

    assert_eq!(found.post(&path, &fields).await.status, 200);

    assert!(!browser.is_signed_in().await && found.is_signed_in().await);
    next_step(&world);
    assert_eq!(browser.sign_in(&zoe, &zoe.code(&world, 0)).await.status, 403);
    let zoe = Person { seed, password: new.to_owned(), ..zoe };
    assert_eq!(browser.sign_in(&zoe, &zoe.code(&world, 0)).await.status, 303);
}

#[tokio::test]
async fn one_mail_address_in_two_orgs_is_told_apart_by_the_org() {
    peopled!(world, browser, zoe);
    let elsewhere = world.org("Globex").await;
    let twin = join(&mut Browser::new(&world), elsewhere, "zoe@example.org", Role::Member).await;
    next_step(&world);
    let (mine, theirs) = (zoe.code(&world, 0), twin.code(&world, 0));
    let mut sign_in = async |org: &str, code: &str| {
        let fields =
            [("email", "zoe@example.org"), ("org", org), ("password", PASSWORD), ("code", code)];
        browser.fill_in("/sign-in", "/sign-in", &fields).await.status
    };

    assert_eq!(sign_in("", &mine).await, 403);
    assert_eq!(sign_in("Globex", &mine).await, 403);
    assert_eq!(sign_in("Initech", &mine).await, 403);
    assert_eq!(sign_in(" Globex ", &theirs).await, 303);
    assert!(browser.get("/account").await.text.contains("member of Globex"));
}

#[tokio::test]
async fn guessing_has_a_budget_by_source() {
    let failures = Budget::per_minute(NonZeroU32::new(3).unwrap());
    let rates = RateLimits { failures, ..settings().rates };
    let world = World::with(Settings { rates, ..settings() });
    let org = world.org("acme").await;
    let zoe = join(&mut Browser::new(&world), org, "zoe@example.org", Role::Admin).await;
    let nobody = |n: u32| Person { email: format!("{n}@example.org"), ..zoe.clone() };
    let mut guesser = Browser::at(&world, "192.0.2.1");

    for n in 0..3 {
        assert_eq!(guesser.sign_in(&nobody(n), "000000").await.status, 403);
    }
    let refused = guesser.sign_in(&nobody(3), "000000").await;
    assert_eq!(refused.status, 429);
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(guesser.get("/welcome/guess").await.status, 429, "links share the budget");
    next_step(&world);
    assert_eq!(Browser::new(&world).sign_in(&zoe, &zoe.code(&world, 0)).await.status, 303);
}

#[tokio::test]
async fn without_mail_a_reset_leads_to_the_operator() {
    let world = World::on(Box::new(MemoryStore::new(Epoch::from_random([1; 16]))), generous());
    let page = Browser::new(&world).get("/reset").await;

    assert!(page.text.contains("postern-controlplane recover"), "{}", page.text);
    assert!(!page.text.contains("<form"), "{}", page.text);
    drop(Arc::new(world));
}
