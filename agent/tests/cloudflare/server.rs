//! The fake behind a real socket, for clients that are not ours and for the program itself.

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse as _;
use tokio::net::TcpListener;

use crate::fake::{FakeCloudflare, Request};

/// What a client has to show.
pub(crate) const TOKEN: &str = "fake-token-of-forty-characters-0123456789";

/// Serves the fake for as long as the test's runtime lives; answers the address of its API.
pub(crate) async fn serve(fake: &FakeCloudflare) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback(answer).with_state(fake.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}/client/v4")
}

async fn answer(
    State(fake): State<FakeCloudflare>,
    request: axum::extract::Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let shown = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    fake.state().is_expired = shown != Some(&format!("Bearer {TOKEN}"));
    let target = parts.uri.path_and_query().unwrap().as_str();
    let Some(target) = target.strip_prefix("/client/v4/") else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let answer = fake.answer(&Request::read(parts.method.as_str(), target, &body));
    let mut response =
        Response::builder().status(answer.status).header(CONTENT_TYPE, "application/json");
    if let Some(wait) = answer.retry_after {
        response = response.header(RETRY_AFTER, wait);
    }
    response.body(Body::from(answer.body)).unwrap()
}
