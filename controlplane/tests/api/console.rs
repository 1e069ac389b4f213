//! The console, by browsers without script.

use postern_controlplane::domain::Role;
use reqwest::Method;

use crate::browser::{Browser, join};
use crate::world::{World, generous};

/// Every page that there is without any record.
pub(crate) const PAGES: &[&str] = &[
    "/console",
    "/console/groups",
    "/console/pairs",
    "/console/agents",
    "/console/keys",
    "/console/people",
    "/console/audit",
];

#[tokio::test]
async fn who_signs_in_is_led_into_the_console_and_finds_the_way_out() {
    let world = World::with(generous());
    let org = world.org("acme <b>").await;
    let mut browser = Browser::new(&world);

    for path in ["/", "/console/"] {
        let led = browser.get(path).await;
        assert_eq!((led.status, led.header("location")), (303, "/console"), "{path}");
    }
    for path in PAGES.iter().chain(&["/console/nothing"]) {
        let led = browser.get(path).await;
        assert_eq!((led.status, led.header("location")), (303, "/sign-in"), "{path}");
        let led = browser.post(path, &[]).await;
        assert_eq!((led.status, led.header("location")), (303, "/sign-in"), "{path}");
    }
    join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    for path in PAGES {
        let page = browser.get(path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.text);
        for part in ["acme &#60;b&#62;", "zoe@example.org", "aria-current=\"page\""] {
            assert!(page.text.contains(part), "{path}: {part}: {}", page.text);
        }
    }
    let proof = browser.get("/console").await.field("proof").unwrap().to_owned();
    let kept = browser.clone();
    assert_eq!(browser.post("/sign-out", &[("proof", &proof)]).await.status, 303);
    assert_eq!(kept.clone().get("/console").await.status, 303, "the login itself has ended");
}

#[tokio::test]
async fn pages_are_private_and_load_nothing() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    join(&mut browser, org, "zoe@example.org", Role::Admin).await;

    for path in PAGES.iter().chain(&["/console/nothing"]) {
        let page = browser.get(path).await;
        assert_eq!(page.header("cache-control"), "no-store", "{path}");
        assert_eq!(page.header("referrer-policy"), "same-origin", "{path}");
        let policy = page.header("content-security-policy");
        let parts: Vec<&str> = policy.split("; ").collect();
        assert_eq!(parts[0], "default-src 'none'", "{policy}");
        let is_known = |part: &&str| {
            ["style-src 'sha256-", "script-src 'sha256-"].iter().any(|it| part.starts_with(it))
                || ["form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"]
                    .contains(part)
                || *part == "connect-src 'self'"
        };
        assert!(parts[1..].iter().all(is_known), "{policy}");
        for loads in ["src=", "url(", "@import", "<link", "http:", "https:"] {
            assert!(!page.text.contains(loads), "{path}: {loads}");
        }
    }
}

#[tokio::test]
async fn errors_are_pages() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    join(&mut browser, org, "zoe@example.org", Role::Admin).await;

    let unknown = browser.get("/console/nothing").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.text.contains("there is nothing here under this name."), "{}", unknown.text);
    let wrong = browser.send(browser.request(Method::PUT, "/console/groups")).await;
    assert_eq!(wrong.status, 405);
    assert!(wrong.text.contains("aria-label=\"Console\""), "{}", wrong.text);
    let forged = browser.post("/console/groups", &[("name", "web")]).await;
    assert_eq!(forged.status, 403);
    assert!(forged.text.contains("open the page again"), "{}", forged.text);
    assert!(world.engine.state().org(org).unwrap().groups.is_empty());
}
