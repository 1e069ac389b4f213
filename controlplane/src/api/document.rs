//! `/openapi.json`: the API as a document, generated from the handlers.
//!
//! A handler's annotation names what is its own; what all operations share (problems, the header
//! fields of every answer, the ways to authenticate) is added here, once.

use axum::Extension;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use postern_shared::openapi::email;
use postern_shared::wire::v1::Problem;
use serde_json::{Map, Value, json};
use utoipa::openapi::schema::{AnyOfBuilder, Object, ObjectBuilder, Type};
use utoipa::openapi::{OpenApi as Generated, Schema};
use utoipa::{IntoParams, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::http::ApiError;
use crate::http::etag::{EntityTag, is_known};
use crate::http::limit::{Caller, Tier};
use crate::http::paging::{PAGE_LEN_DEFAULT, PAGE_LEN_MAX};
use crate::http::problem::KINDS;
use crate::server::ClientAddress;

/// The whole document, and its version.
#[derive(Debug, Clone)]
pub(super) struct Document {
    text: Bytes,
    etag: EntityTag,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Postern API",
        description = "Pairs report where they are; groups of pairs and fixed networks resolve \
            into allowlists. Every request needs two factors: a secret, and a source address on \
            the secret's origin list. Numbers name pairs and groups inside their org as ids do. \
            Clients pass over fields that they do not know.",
        version = "1",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    servers((url = "/api/v1", description = "This control plane")),
    tags(
        (name = "account", description = "The caller, its org and the org's keys"),
        (name = "pairs", description = "Roving persons, devices and servers"),
        (name = "groups", description = "Named sets of members"),
        (name = "members", description = "Who and what belongs to a group"),
        (name = "lists", description = "What groups allow"),
        (name = "agents", description = "The daemons on protected hosts"),
        (name = "document", description = "This document"),
    ),
    components(schemas(Problem)),
)]
struct Beginning;

/// Names a pair.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "this describes a path")]
pub(super) struct PairPath {
    /// The pair's id, or its number in the org.
    #[param(
        pattern = "^([0-9]{1,19}|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})$"
    )]
    id: String,
}

/// Names a group.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "this describes a path")]
pub(super) struct GroupPath {
    /// The group's id, or its number in the org.
    #[param(
        pattern = "^([0-9]{1,19}|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})$"
    )]
    id: String,
}

/// Names a member of a group.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "this describes a path")]
pub(super) struct MemberPath {
    /// The group's id, or its number in the org.
    #[param(
        pattern = "^([0-9]{1,19}|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})$"
    )]
    id: String,
    /// The membership's id, or the id or number of the pair.
    #[param(
        pattern = "^([0-9]{1,19}|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})$"
    )]
    member: String,
}

/// Names an API key.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "this describes a path")]
pub(super) struct KeyPath {
    /// The key's id.
    #[param(format = "uuid")]
    id: String,
}

/// Names a page of a list; the pattern is that of the list's own cursors: its letter, then its kind of key.
macro_rules! paging {
    ($($list:ident $pattern:literal)*) => {$(
        #[derive(IntoParams)]
        #[into_params(parameter_in = Query)]
        #[expect(dead_code, reason = "this describes a query")]
        pub(super) struct $list {
            /// Items of the page.
            #[param(minimum = 1, maximum = 1_000, default = 100, nullable = false)]
            limit: Option<u64>,
            /// `meta.next_cursor` of the page before.
            #[param(pattern = $pattern, nullable = false)]
            cursor: Option<String>,
        }
    )*};
}

paging! {
    PagesOfPairs "^p[A-Za-z0-9_-]{10}[AEIMQUYcgkosw048]$"
    PagesOfGroups "^g[A-Za-z0-9_-]{10}[AEIMQUYcgkosw048]$"
    PagesOfMembers "^m[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$"
    PagesOfKeys "^k[A-Za-z0-9_-]{21}[AQgw]$"
    PagesOfAudit "^a[A-Za-z0-9_-]{18}[AEIMQUYcgkosw048]$"
}

const _: () = assert!(PAGE_LEN_MAX == 1_000 && PAGE_LEN_DEFAULT == 100, "as the pages say");

/// Holds a change to the version that was read.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "this describes a header field")]
pub(super) struct IfMatch {
    /// The ETag of the version that the change is meant for; from any other it is refused.
    #[param(rename = "If-Match", pattern = r#"^(|\*|(W/)?"[!#-~]*")$"#, nullable = false)]
    if_match: Option<String>,
}

/// Names a request, so that it is carried out once.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "this describes a header field")]
pub(super) struct OnceHeader {
    /// A name of the client's choice, such as a UUID, with or without quotes. The same request with
    /// the same name is carried out once, and gets the same answer for 24 hours.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        pattern = r#"^("[!#-\[\]-~]{1,255}"|[!#-\[\]-~]{1,255})$"#,
        nullable = false
    )]
    idempotency_key: Option<String>,
}

/// Names the version that the client has.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "this describes a header field")]
pub(super) struct IfNoneMatch {
    /// The ETag of what the client has: when it is still that, the answer is 304.
    #[param(rename = "If-None-Match", pattern = r#"^(|\*|(W/)?"[!#-~]*")$"#, nullable = false)]
    if_none_match: Option<String>,
}

/// Asks for an answer that comes with the next change.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "this describes a header field")]
pub(super) struct PreferWait {
    /// `wait=30` holds the answer until it is another than `If-None-Match` names, 30 seconds at
    /// most.
    #[param(rename = "Prefer", example = "wait=30", nullable = false)]
    prefer: Option<String>,
}

/// A pattern of ids and of numbers, as paths take both.
const NAME: &str =
    "^([0-9]{1,19}|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})$";

fn name() -> Object {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(NAME)).build()
}

/// A pair in a body: its id or number as text, or its number as such.
pub(super) fn pair_name() -> Schema {
    let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
    AnyOfBuilder::new().item(name()).item(number).build().into()
}

/// A mail address or none.
pub(super) fn nullable_email() -> Schema {
    let none = ObjectBuilder::new().schema_type(Type::Null);
    AnyOfBuilder::new().item(email()).item(none).build().into()
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show))
}

/// Gives this document.
#[utoipa::path(
    get, path = "/api/v1/openapi.json", operation_id = "getDocument", tag = "document",
    params(IfNoneMatch),
    security(()),
    responses(
        (status = 200, description = "The document", body = Object, content_type = "application/json",
            headers(("ETag" = String, description = "The version of the document"))),
        (status = 304, description = "The document is as `If-None-Match` names it",
            headers(("ETag" = String, description = "The version of the document"))),
    ),
)]
async fn show(
    State(app): State<App>,
    Extension(document): Extension<Document>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let budget = app.limiter().take(Tier::Read, Caller::source(address), app.engine().now())?;
    let fields = [
        (ETAG, document.etag.to_header()),
        (CACHE_CONTROL, HeaderValue::from_static("public, no-cache")),
    ];
    let mut response = if is_known(&headers, &document.etag)? {
        (StatusCode::NOT_MODIFIED, fields).into_response()
    } else {
        let media_type = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
        (fields, [media_type], document.text).into_response()
    };
    budget.write(response.headers_mut());
    Ok(response)
}

/// What the document's paths are below. Routes name it each for itself: axum's own way to nest them
/// would take it out of every request's address, and put layers around every route.
const SERVER: &str = "/api/v1";

/// The document without any operation.
pub(super) fn beginning() -> Generated {
    Beginning::openapi()
}

/// Adds what all operations share.
pub(super) fn complete(generated: Generated) -> Document {
    let mut document = serde_json::to_value(generated).expect("a document has only plain fields");
    let mut below = Map::new();
    for (path, mut item) in std::mem::take(document["paths"].as_object_mut().expect("paths")) {
        let path = path.strip_prefix(SERVER).expect("a route of the API says all of its path");
        let operations = item.as_object_mut().into_iter().flatten();
        for (method, operation) in operations.filter(|(name, _)| is_method(name)) {
            complete_operation(path, method, operation);
        }
        below.insert(path.to_owned(), item);
    }
    document["paths"] = below.into();
    let slugs: Vec<&str> = KINDS.iter().map(|kind| kind.slug).collect();
    document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"] = json!(slugs);
    document["components"]["responses"] = responses();
    document["components"]["headers"] = headers();
    document["components"]["securitySchemes"] = security_schemes();
    drop_unused(&mut document);
    let text = Bytes::from(serde_json::to_vec(&document).expect("it was JSON before"));
    Document { etag: EntityTag::strong(&[&text]), text }
}

/// Takes out the components that nothing refers to, until all are referred to.
fn drop_unused(document: &mut Value) {
    loop {
        let text = document.to_string();
        let mut dropped = false;
        for kind in ["schemas", "responses"] {
            let components = document["components"][kind].as_object_mut();
            let Some(components) = components else { continue };
            let before = components.len();
            components.retain(|name, _| text.contains(&format!("\"#/components/{kind}/{name}\"")));
            dropped |= components.len() < before;
        }
        if !dropped {
            return;
        }
    }
}

fn is_method(name: &str) -> bool {
    matches!(name, "get" | "put" | "post" | "delete" | "patch")
}

fn complete_operation(path: &str, method: &str, operation: &mut Value) {
    let requirements = operation["security"].as_array();
    let is_open = requirements.is_some_and(|all| all.contains(&json!({})));
    let takes_body = operation.get("requestBody").is_some();
    let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    let has = |name: &str| parameters.iter().any(|parameter| parameter["name"] == name);
    let mut statuses = vec![400, 429, 500, 503];
    if !is_open {
        statuses.extend([401, 403]);
    }
    if path.contains('{') {
        statuses.push(404);
    }
    if has("Idempotency-Key") {
        statuses.extend([408, 413, 422]);
    }
    if takes_body {
        statuses.extend([408, 413, 415, 422]);
    }
    if has("If-Match") {
        statuses.push(412);
    }
    // What was pruned cannot be asked for.
    if method != "get" || path.ends_with("/history") {
        statuses.push(409);
    }
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    for response in responses.values_mut() {
        add_headers(response);
    }
    for status in statuses {
        let reference =
            json!({ "$ref": format!("#/components/responses/{}", response_name(status)) });
        responses.entry(status.to_string()).or_insert(reference);
    }
}

/// The header fields that every success carries.
fn add_headers(response: &mut Value) {
    for name in ["RateLimit", "RateLimit-Policy", "X-Request-Id"] {
        response["headers"][name] = json!({ "$ref": format!("#/components/headers/{name}") });
    }
}

fn response_name(status: u16) -> String {
    format!("Problem{status}")
}

/// One response for each status, with the kinds of problem that have it.
fn responses() -> Value {
    let mut responses = Map::new();
    for kind in KINDS {
        let status = kind.status.as_u16();
        let told = format!("`{}`: {}", kind.slug, kind.title);
        let response = responses.entry(response_name(status)).or_insert_with(|| response(status));
        let before = response["description"].as_str().filter(|text| !text.is_empty());
        response["description"] =
            before.map_or(told.clone(), |before| format!("{before}; {told}")).into();
    }
    Value::Object(responses)
}

fn response(status: u16) -> Value {
    let mut headers = Map::new();
    let mut add = |name: &str| {
        headers.insert(name.into(), json!({ "$ref": format!("#/components/headers/{name}") }));
    };
    add("X-Request-Id");
    match status {
        401 => add("WWW-Authenticate"),
        429 | 503 => add("Retry-After"),
        _ => {}
    }
    let schema = json!({ "$ref": "#/components/schemas/Problem" });
    json!({
        "description": "",
        "headers": headers,
        "content": { "application/problem+json": { "schema": schema } },
    })
}

fn headers() -> Value {
    let text =
        |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    json!({
        "X-Request-Id": text("Names the request in the daemon's log."),
        "RateLimit": text("What is left of the tightest budget: `\"reads\";r=99;t=60`."),
        "RateLimit-Policy": text("The budget: `\"reads\";q=100;w=60`."),
        "WWW-Authenticate": text("How to authenticate: `Bearer`."),
        "Retry-After": {
            "description": "After how many seconds to try again.",
            "schema": { "type": "integer", "minimum": 1 },
        },
    })
}

fn security_schemes() -> Value {
    let bearer = |description: &str, format: &str| {
        json!({
            "type": "http", "scheme": "bearer", "bearerFormat": format, "description": description,
        })
    };
    json!({
        "key": bearer(
            "An API key. It works only from its origins; what it may do is in its scopes.",
            "pok_…",
        ),
        "agent": bearer("An agent's credential. It works only from where its own pair is.", "poa_…"),
        "invitation": bearer("An enrolment token: works once.", "poe_…"),
    })
}
