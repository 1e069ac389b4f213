//! The pages of hosts, keys, people and the audit in Chromium: by hand, by keyboard, and by
//! axe-core's rules.

use postern_controlplane::domain::Role;

use crate::browser::{Browser, join, next_step};
use crate::look::DESKTOP;
use crate::walk::{Plane, furnish, hold};
use crate::window::Window;
use crate::world::OFFICE;

/// Fills in what mints a key for the own address, with the code that the authenticator shows.
async fn mint(plane: &Plane, window: &Window) {
    window.go(&format!("{}/console/keys", plane.url)).await;
    window.fill("#name", "Nightly feed").await;
    window.click("input[name='scope-groups.read']").await;
    window.fill("#origins", OFFICE).await;
    next_step(&plane.world);
    window.fill("#code", &plane.zoe.code(&plane.world, 0)).await;
    window.click("main form[method=post] button").await;
    window.says("It is shown here and never again.").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_minted_and_revoked_by_hand_and_works_in_between() {
    let plane = Plane::start().await;
    let window = plane.window().await;

    mint(&plane, &window).await;

    let secret = window.value("document.getElementById('secret').textContent").await;
    let key = secret.as_str().unwrap().parse().unwrap();
    let status = async || plane.world.holder(&key, OFFICE).get("/api/v1/groups").await.status();
    assert_eq!(status().await, 200);
    let address = window.value("location.href").await;
    assert_eq!(address, format!("{}/console/keys", plane.url), "no secret is in it");
    window.click("nav a[href='/console/keys']").await;
    window.says("Nightly feed").await;
    window.click("main th a").await;
    window.says("Narrow it").await;
    window.click("main a.danger").await;
    window.says("Revoke Nightly feed?").await;
    assert_eq!(status().await, 200, "asking changes nothing");
    window.click("main button.danger").await;
    window.says("Revoked keys (1)").await;
    assert_eq!(status().await, 401);
    window.click("nav a[href='/console/audit']").await;
    window.says("revoked the key Nightly feed").await;
    assert_eq!(window.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_hosts_keys_people_and_the_audit_keep_axe_cores_rules() {
    let plane = Plane::start().await;
    furnish(&plane).await;
    let world = &plane.world;
    let mut elsewhere = Browser::at(world, "2001:db8::77");
    let long = "max.with.a.rather.long.address@mail.example.org";
    let max = join(&mut elsewhere, plane.org, long, Role::Member).await;
    let window = plane.window().await;
    let mut faults = Vec::new();

    mint(&plane, &window).await;
    hold(&window, "key-minted", &mut faults).await;
    window.go(&format!("{}/console/keys", plane.url)).await;
    window.fill("#name", "x").await;
    window.fill("#origins", "10.0.0.1/8").await;
    window.fill("#code", "000000").await;
    window.click("main form[method=post] button").await;
    window.says("the network is 10.0.0.0/8").await;
    hold(&window, "keys-wrong", &mut faults).await;
    window.go(&format!("{}/console/agents", plane.url)).await;
    window.fill("#name", "db-1").await;
    window.click("input[name='group-1']").await;
    window.click("main form[method=post] button").await;
    window.says("On the host").await;
    hold(&window, "agent-invited", &mut faults).await;
    window.go(&format!("{}/console/people", plane.url)).await;
    window.fill("#email", "eve@example.org").await;
    window.click("main form[method=post] button").await;
    window.says("Hand this link to").await;
    hold(&window, "person-invited", &mut faults).await;
    let (host, key) = {
        let state = world.engine.state();
        let org = state.org(plane.org).unwrap();
        (*org.agents.iter().next().unwrap(), *org.keys.iter().next().unwrap())
    };
    for (name, path) in [
        ("agents", "agents".to_owned()),
        ("agent", format!("agents/{host}")),
        ("agent-revoke", format!("agents/{host}/revoke")),
        ("keys", "keys".to_owned()),
        ("key", format!("keys/{key}")),
        ("key-revoke", format!("keys/{key}/revoke")),
        ("people", "people".to_owned()),
        ("person", format!("people/{}", max.id)),
        ("person-remove", format!("people/{}/remove", max.id)),
        ("audit", "audit".to_owned()),
        ("audit-wrong", "audit?since=yesterday".to_owned()),
        ("audit-verify", "audit/verify".to_owned()),
        ("audit-allowed", "audit/allowed?group=1&at=2026-01-01T00:00:00".to_owned()),
    ] {
        window.go(&format!("{}/console/{path}", plane.url)).await;
        hold(&window, name, &mut faults).await;
    }

    assert_eq!(faults, Vec::<String>::new(), "{}", faults.join("\n"));
    let wanted = |told: &&String| !told.contains("422");
    let complaints = window.complaints().await;
    assert_eq!(complaints.iter().filter(wanted).collect::<Vec<_>>(), Vec::<&String>::new());
}

/// All controls that are shown, in the order of the page; of radio buttons those that Tab reaches.
const CONTROLS: &str = "[...document.querySelectorAll('a[href], button, input, select, textarea, summary')]\
    .filter((it) => it.type !== 'hidden' && it.checkVisibility() && \
    (it.type !== 'radio' || it.checked))";

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_reaches_every_control_of_these_pages_too() {
    let plane = Plane::start().await;
    furnish(&plane).await;
    let window = plane.window().await;
    window.show_on(DESKTOP, "light").await;

    for path in ["/console/agents", "/console/keys", "/console/people", "/console/audit"] {
        window.go(&format!("{}{path}", plane.url)).await;
        window.holds("document.readyState === 'complete'").await;
        let count = window.value(&format!("{CONTROLS}.length")).await.as_i64().unwrap();
        let mut last = -1;
        // A field for a time has a stop for each of its parts.
        for _ in 0..count * 8 {
            window.press_tab().await;
            let here = window.value(&format!("{CONTROLS}.indexOf(document.activeElement)")).await;
            let here = here.as_i64().unwrap();
            let what = window.value("document.activeElement.outerHTML.slice(0, 200)").await;
            assert!(here == last || here == last + 1, "{path}: {here} behind {last}: {what}");
            let ring = "(() => { const it = getComputedStyle(document.activeElement); \
                        return it.outlineStyle !== 'none' && parseFloat(it.outlineWidth) >= 2; })()";
            assert_eq!(window.value(ring).await, true, "{path}: {what} shows no focus");
            last = here;
            if last == count - 1 {
                break;
            }
        }
        assert_eq!(last, count - 1, "{path}");
    }
}
