//! What belongs to no resource: life signs, paths and methods that nobody knows.

use postern_controlplane::app::Settings;
use reqwest::Method;

use crate::world::{OFFICE, World, problem, settings};

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn who_waits_for_the_disk_is_not_ready_and_lives_all_the_same() {
    const COMMIT: &str = "store::before_commit";
    let scenario = fail::FailScenario::setup();
    let world = World::start();
    let org = world.org("acme").await;
    let holder = world.holder(&world.key(org).await, OFFICE);
    let status = async |path: &str| world.at(OFFICE).get(path).await.status().as_u16();
    assert_eq!((status("/livez").await, status("/readyz").await), (200, 200));

    fail::cfg(COMMIT, "pause").unwrap();
    let late = serde_json::json!({ "name": "late" });
    let stuck = holder.json(Method::POST, "/api/v1/groups", &late);
    let look = async {
        let unready = loop {
            let answer = world.at(OFFICE).get("/readyz").await;
            if answer.status() != 200 {
                break answer;
            }
        };
        let alive = status("/livez").await;
        fail::remove(COMMIT);
        (unready, alive)
    };
    let both = async { tokio::join!(stuck, look) };
    let (stuck, (unready, alive)) = crate::world::within(both).await;

    assert_eq!((unready.status().as_u16(), alive), (503, 200));
    assert_eq!(unready.headers()["retry-after"], "1");
    assert_eq!(problem(unready).await["type"], "unavailable");
    assert_eq!((stuck.status().as_u16(), status("/readyz").await), (201, 200));
    scenario.teardown();
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let caller = world.holder(&key, OFFICE);

    for path in ["/b/", "/api", "/api/v1", "/api/v2/pairs", "/api/v1/pairs/", "/metrics"] {
        let answer = caller.get(path).await;
        assert_eq!(answer.status(), 404, "{path}");
        assert_eq!(problem(answer).await["type"], "not_found", "{path}");
    }
    for (method, path, allowed) in [
        (Method::PUT, "/api/v1/pairs", "GET,HEAD,POST"),
        (Method::POST, "/api/v1/stream", "GET,HEAD"),
        (Method::GET, "/api/v1/agents/self", "PUT"),
        (Method::POST, "/serverquery/", "GET,HEAD"),
    ] {
        let answer = caller.send(method.clone(), path).await;
        assert_eq!(answer.status(), 405, "{method} {path}");
        assert_eq!(answer.headers()["allow"], allowed, "{method} {path}");
        assert_eq!(problem(answer).await["type"], "method_not_allowed", "{method} {path}");
    }
}

#[tokio::test]
async fn only_pages_on_the_operators_list_may_call() {
    let page = "https://console.example.org";
    let world = World::with(Settings { cors_origins: vec![page.parse().unwrap()], ..settings() });
    let closed = World::start();
    let ask = async |world: &World, method: Method, origin: &str| {
        let request = world.at(OFFICE).request(method, "/api/v1/pairs").header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        crate::world::within(request.send()).await.unwrap()
    };

    let asked = ask(&world, Method::OPTIONS, page).await;
    assert_eq!(asked.status(), 204);
    assert_eq!(asked.headers()["access-control-allow-origin"], page);
    let sent = asked.headers()["access-control-allow-headers"].to_str().unwrap();
    assert!(sent.contains("authorization") && sent.contains("idempotency-key"), "{sent}");
    let answered = ask(&world, Method::GET, page).await;
    assert_eq!(answered.status(), 401, "a page needs both factors as well");
    assert_eq!(answered.headers()["access-control-allow-origin"], page);
    assert_eq!(answered.headers()["vary"], "origin");
    let shown = answered.headers()["access-control-expose-headers"].to_str().unwrap();
    for name in ["etag", "postern-as-of", "postern-entries", "retry-after"] {
        assert!(shown.split(", ").any(|field| field == name), "{name}: {shown}");
    }
    assert!(!answered.headers().contains_key("access-control-allow-credentials"));

    for (world, origin) in [(&world, "https://evil.example"), (&world, "null"), (&closed, page)] {
        for method in [Method::OPTIONS, Method::GET] {
            let answer = ask(world, method, origin).await;
            assert!(matches!(answer.status().as_u16(), 401 | 405), "{origin}");
            assert!(!answer.headers().contains_key("access-control-allow-origin"), "{origin}");
        }
    }
}
