//! What belongs to no resource: life signs, paths and methods that nobody knows.

use postern_controlplane::app::Settings;
use postern_controlplane::metrics::Readiness;
use reqwest::Method;

use crate::world::{OFFICE, World, problem, settings};

#[tokio::test]
async fn life_and_readiness_are_told_to_anybody() {
    let readiness = Readiness::default();
    let latch = readiness.latch("engine");
    let world = World::with(Settings { readiness, ..settings() });
    let status = async |path: &str| world.at(OFFICE).get(path).await.status().as_u16();

    assert_eq!((status("/livez").await, status("/readyz").await), (200, 503));
    latch.close();
    assert_eq!((status("/livez").await, status("/readyz").await), (200, 200));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let caller = world.holder(&key, OFFICE);

    for path in ["/", "/b/", "/api", "/api/v1", "/api/v2/pairs", "/api/v1/pairs/", "/metrics"] {
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
