//! What every answer looks like, whatever route made it.

#![expect(clippy::unwrap_used, reason = "a test may end in a panic")]

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Path;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::Html;
use axum::routing::{get, post};
use postern_controlplane::chance::SeededChance;
use postern_controlplane::clock::ManualClock;
use postern_controlplane::http::etag::{self, EntityTag};
use postern_controlplane::http::json::StrictJson;
use postern_controlplane::http::limit::{Budget, Caller, Limiter, RateLimits, Tier};
use postern_controlplane::http::paging::{Cursor, List, PageRequest};
use postern_controlplane::http::{Answer, ApiError, Border, RequestId, border};
use postern_controlplane::server::TrustedProxies;
use postern_shared::time::Timestamp;
use postern_shared::wire::v1::{Envelope, Problem};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt as _;

const NOW_MS: u64 = 1_700_000_000_000;

struct Seen {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Seen {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn problem(&self) -> Problem {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.headers["cache-control"], "no-store");
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status.as_u16());
        assert_eq!(problem.request_id, self.headers["x-request-id"].to_str().unwrap());
        problem
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
}

fn now() -> Timestamp {
    Timestamp::from_unix_ms(NOW_MS).unwrap()
}

fn app() -> Router {
    let versioned = async |headers: HeaderMap| {
        let etag = EntityTag::strong(&[b"1"]);
        etag::require_match(&headers, &etag)?;
        Ok::<_, ApiError>(Answer::ok(&1).with_etag(&etag))
    };
    let limited = async || {
        let limits =
            RateLimits { reads: Budget::per_minute(NonZeroU32::MIN), ..RateLimits::DEFAULT };
        let (limiter, caller) = (Limiter::new(&limits), Caller::record(&[1; 16]));
        let first = limiter.take(Tier::Read, caller, now())?;
        assert_eq!(first.remaining(), 0);
        let second = limiter.take(Tier::Read, caller, now())?;
        Ok::<_, ApiError>(Answer::ok(&1).with_standing(&second))
    };
    let router = Router::new()
        .route("/thing", get(async || Answer::ok(&json!({"a": 1}))))
        .route("/id", get(async |id: RequestId| Answer::ok(&id.as_str())))
        .route("/made", post(async || Answer::created("/thing/7", &7)))
        .route(
            "/groups",
            post(async |StrictJson(group): StrictJson<Group>| Answer::ok(&group.name)),
        )
        .route("/list", get(list))
        .route("/numbers/{number}", get(async |Path(number): Path<u8>| Answer::ok(&number)))
        .route("/page", get(async || (StatusCode::NOT_FOUND, Html("<p>no</p>"))))
        .route("/versioned", get(versioned))
        .route("/limited", get(limited))
        .route("/broken", get(async || ApiError::internal(std::io::Error::other("secret detail"))))
        .route(
            "/full",
            get(async || ApiError::DiskFull { retry_after: Duration::from_millis(1_500) }),
        );
    let clock = Arc::new(ManualClock::at(now()));
    border::finish(router, Border::new(TrustedProxies::NONE, clock, &SeededChance::new(7)))
}

async fn list(page: PageRequest) -> Result<Answer, ApiError> {
    let from = page.behind(List::Pairs)?.map_or(0, |[last]: [u8; 1]| last + 1);
    let (page, next) = page.cut(from..5, |last| Cursor::behind(List::Pairs, &[*last]));
    Ok(Answer::page(&page, next))
}

async fn send(request: Request<Body>) -> Seen {
    let response = app().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap().to_vec();
    Seen { status: parts.status, headers: parts.headers, body }
}

async fn ask(method: Method, path: &str) -> Seen {
    send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
}

async fn post_json(path: &str, body: &str) -> Seen {
    let request = Request::post(path).header("content-type", "application/json");
    send(request.body(Body::from(body.to_owned())).unwrap()).await
}

#[tokio::test]
async fn a_success_is_an_envelope() {
    let seen = ask(Method::GET, "/thing").await;

    let envelope: Envelope<Value> = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(envelope.data, json!({"a": 1}));
    assert_eq!(envelope.meta.timestamp, now());
    assert_eq!(envelope.meta.next_cursor, None);
    assert_eq!(envelope.meta.request_id, seen.headers["x-request-id"].to_str().unwrap());
    assert_eq!(seen.headers["content-type"], "application/json");
    assert_eq!(seen.headers["cache-control"], "no-store");
    assert_eq!(seen.headers["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn request_ids_are_ours_and_never_the_same() {
    let app = app();
    let id = async || {
        let request = Request::get("/id").header("x-request-id", "req_forged");
        let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let header = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let envelope: Envelope<String> = serde_json::from_slice(&body).unwrap();
        assert_eq!(envelope.data, header);
        header
    };

    let (first, second) = (id().await, id().await);

    assert_ne!(first, second);
    assert!(first.starts_with("req_") && !first.contains("forged"), "{first}");
}

#[tokio::test]
async fn a_new_object_is_told_with_its_place() {
    let seen = ask(Method::POST, "/made").await;

    assert_eq!(seen.status, StatusCode::CREATED);
    assert_eq!(seen.headers["location"], "/thing/7");
    assert_eq!(seen.json()["data"], 7);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let missing = ask(Method::GET, "/nothing").await;
    let wrong = ask(Method::DELETE, "/thing").await;
    let odd = ask(Method::from_bytes(b"BREW").unwrap(), "/made").await;

    assert_eq!(missing.problem().r#type, "not_found");
    assert_eq!(wrong.problem().r#type, "method_not_allowed");
    assert_eq!(wrong.headers["allow"], "GET,HEAD");
    assert_eq!(odd.problem().r#type, "method_not_allowed");
    assert_eq!(odd.headers["allow"], "POST");
}

#[tokio::test]
async fn what_an_extractor_refuses_is_a_problem_and_a_page_of_ours_stays() {
    let refused = ask(Method::GET, "/numbers/many").await;
    let page = ask(Method::GET, "/page").await;

    assert_eq!(refused.problem().r#type, "bad_request");
    assert_eq!((page.status, page.body.as_slice()), (StatusCode::NOT_FOUND, &b"<p>no</p>"[..]));
}

#[tokio::test]
async fn a_head_request_gets_the_head_alone() {
    for (path, status) in [("/thing", StatusCode::OK), ("/nothing", StatusCode::NOT_FOUND)] {
        let seen = ask(Method::HEAD, path).await;

        assert_eq!(seen.status, status);
        assert!(seen.headers.contains_key("x-request-id"));
        assert!(seen.body.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn a_wrong_body_is_told_field_by_field() {
    let unknown = post_json("/groups", r#"{"name": "a", "nmae": "b"}"#).await;
    let twice = post_json("/groups", r#"{"name": "a", "name": "b"}"#).await;
    let untyped = ask(Method::POST, "/groups").await;
    let long = post_json("/groups", &format!(r#"{{"name": "{}"}}"#, "x".repeat(64 * 1024))).await;

    let problem = unknown.problem();
    assert_eq!((problem.status, problem.r#type.as_str()), (422, "invalid"));
    assert_eq!(problem.errors[0].pointer, "/nmae");
    assert_eq!(problem.detail.as_deref(), Some("one field of the request must be changed"));
    assert_eq!(twice.problem().status, 400);
    assert_eq!(untyped.problem().status, 415);
    assert_eq!(long.problem().status, 413);
    assert_eq!(post_json("/groups", r#"{"name": "a"}"#).await.json()["data"], "a");
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let first = ask(Method::GET, "/list?limit=3").await.json();
    let cursor = first["meta"]["next_cursor"].as_str().unwrap().to_owned();
    let second = ask(Method::GET, &format!("/list?limit=3&cursor={cursor}")).await.json();

    assert_eq!(first["data"], json!([0, 1, 2]));
    assert_eq!(second["data"], json!([3, 4]));
    assert_eq!(second["meta"].get("next_cursor"), None);
    for query in ["limit=0", "limit=x", "cursor=x", "limit=1&limit=2"] {
        let refused = ask(Method::GET, &format!("/list?{query}")).await;
        assert_eq!(refused.problem().status, 400, "{query}");
    }
}

#[tokio::test]
async fn a_fault_on_our_side_tells_the_request_id_alone() {
    let broken = ask(Method::GET, "/broken").await;

    assert_eq!(broken.problem().detail, None);
    assert!(!String::from_utf8(broken.body).unwrap().contains("secret detail"));
}

#[tokio::test]
async fn who_has_to_wait_is_told_how_long() {
    let full = ask(Method::GET, "/full").await;
    let limited = ask(Method::GET, "/limited").await;

    assert_eq!((full.status.as_u16(), &full.headers["retry-after"]), (503, &"2".parse().unwrap()));
    assert_eq!(full.problem().r#type, "disk_full");
    assert_eq!(limited.problem().r#type, "rate_limited");
    assert_eq!(limited.headers["retry-after"], "60");
    assert_eq!(limited.headers["ratelimit"], "\"reads\";r=0;t=60");
    assert_eq!(limited.headers["ratelimit-policy"], "\"reads\";q=1;w=60");
}

#[tokio::test]
async fn a_version_is_asked_for_and_told() {
    let without = ask(Method::GET, "/versioned").await;
    let etag = EntityTag::strong(&[b"1"]).to_string();
    let request = Request::get("/versioned").header("if-match", &etag).body(Body::empty());
    let with = send(request.unwrap()).await;

    assert_eq!(without.problem().status, 428);
    assert_eq!((with.status, with.headers["etag"].to_str().unwrap()), (StatusCode::OK, &*etag));
}
