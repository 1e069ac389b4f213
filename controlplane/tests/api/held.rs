//! Holds every answer of `/api/v1` against the document that the plane itself serves.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use http_body_util::BodyExt as _;
use postern_controlplane::server::Peer;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tower::ServiceExt as _;

/// What was found to be wrong, and what it was held against.
#[derive(Clone)]
pub(crate) struct Held(Arc<Parts>);

struct Parts {
    router: Router,
    document: OnceCell<Value>,
    faults: Mutex<Vec<String>>,
}

/// Bodies that have no end.
const EVENTS: &str = "text/event-stream";

impl Held {
    /// Puts the check around `router`.
    pub(crate) fn around(router: Router) -> (Router, Held) {
        let parts =
            Parts { router: router.clone(), document: OnceCell::new(), faults: Mutex::default() };
        let held = Held(Arc::new(parts));
        (router.layer(from_fn_with_state(held.clone(), hold)), held)
    }

    /// The document as it is served.
    pub(crate) async fn document(&self) -> &Value {
        let ask = async || {
            let peer = Peer::Tcp { address: "127.0.0.1:9".parse().unwrap(), is_tls: false };
            let request = Request::get("/api/v1/openapi.json")
                .header("x-forwarded-for", "192.0.2.250")
                .extension(peer)
                .body(Body::empty())
                .unwrap();
            let answer = self.0.router.clone().oneshot(request).await.unwrap();
            let bytes = answer.into_body().collect().await.unwrap().to_bytes();
            serde_json::from_slice(&bytes).unwrap()
        };
        self.0.document.get_or_init(ask).await
    }

    /// Everything that was wrong so far.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.0.faults.lock().unwrap().clone()
    }
}

async fn hold(State(held): State<Held>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let Some(path) = path.strip_prefix("/api/v1") else { return response };
    let (parts, body) = response.into_parts();
    let media_type = parts.headers.get("content-type").map(|it| it.to_str().unwrap().to_owned());
    let is_stream = media_type.as_deref() == Some(EVENTS);
    let (bytes, body) = if is_stream {
        (None, body)
    } else {
        let bytes = body.collect().await.unwrap().to_bytes();
        (Some(bytes.clone()), Body::from(bytes))
    };
    let document = held.document().await;
    let answer = Answer {
        method: &method,
        status: parts.status.as_u16(),
        headers: &parts.headers,
        media_type: media_type.as_deref(),
        body: bytes.as_deref().filter(|_| method != Method::HEAD),
    };
    let faults = answer.faults(document, path);
    if !faults.is_empty() {
        let told = format!("{method} {path} {}: {faults:?}", parts.status);
        held.0.faults.lock().unwrap().push(told);
    }
    Response::from_parts(parts, body)
}

struct Answer<'a> {
    method: &'a Method,
    status: u16,
    headers: &'a axum::http::HeaderMap,
    media_type: Option<&'a str>,
    body: Option<&'a [u8]>,
}

impl Answer<'_> {
    fn faults(&self, document: &Value, path: &str) -> Vec<String> {
        let Some(operation) = operation(document, self.method, path) else {
            let is_refused = matches!(self.status, 404 | 405) || self.method == Method::OPTIONS;
            return if is_refused { vec![] } else { vec!["no such operation".to_owned()] };
        };
        let described = &operation["responses"][self.status.to_string()];
        let response = resolve(document, described);
        if response.is_null() {
            return vec!["the status is not described".to_owned()];
        }
        let mut faults = Vec::new();
        for (name, _) in response["headers"].as_object().into_iter().flatten() {
            if !self.headers.contains_key(name.as_str()) {
                faults.push(format!("the header {name} is described and missing"));
            }
        }
        let content = response["content"].as_object();
        match (self.media_type, content) {
            (None, None) => {}
            (Some(media_type), Some(content)) if content.contains_key(media_type) => {
                let schema = &content[media_type]["schema"];
                if media_type.contains("json")
                    && let Some(body) = self.body
                {
                    faults.extend(self.body_faults(document, schema, body));
                    faults.extend(cursor_fault(operation, body));
                }
            }
            (found, _) => faults.push(format!("the media type {found:?} is not described")),
        }
        faults
    }

    fn body_faults(&self, document: &Value, schema: &Value, body: &[u8]) -> Vec<String> {
        let body: Value = serde_json::from_slice(body).unwrap();
        let whole = json!({ "components": document["components"], "allOf": [schema] });
        let validator =
            jsonschema::draft202012::options().should_validate_formats(true).build(&whole).unwrap();
        let mut faults: Vec<String> = validator
            .iter_errors(&body)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        undescribed(document, &[schema], &body, "", &mut faults);
        faults
    }
}

/// What is wrong with the cursor of the next page, held against the parameter that takes it.
fn cursor_fault(operation: &Value, body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).unwrap();
    let cursor = Some(&body["meta"]["next_cursor"]).filter(|cursor| cursor.is_string())?;
    let mut parameters = operation["parameters"].as_array().into_iter().flatten();
    let taken = parameters.find(|parameter| parameter["name"] == "cursor");
    let fits = taken.is_some_and(|taken| jsonschema::is_valid(&taken["schema"], cursor));
    (!fits).then(|| format!("{cursor} is no cursor as the document has them"))
}

/// The operation of a method and a path, of which a segment in braces takes anything.
pub(crate) fn operation<'a>(document: &'a Value, method: &Method, path: &str) -> Option<&'a Value> {
    let method =
        if method == Method::HEAD { "get".to_owned() } else { method.as_str().to_lowercase() };
    let fits = |template: &str| {
        let (template, path) = (template.split('/'), path.split('/'));
        template.clone().count() == path.clone().count()
            && template.zip(path).all(|(wanted, found)| wanted.starts_with('{') || wanted == found)
    };
    let (_, item) = document["paths"].as_object()?.iter().find(|(template, _)| fits(template))?;
    item.get(&method)
}

/// Follows a reference inside the document.
pub(crate) fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap(),
        None => value,
    }
}

/// Finds fields that no schema names.
fn undescribed(
    document: &Value,
    schemas: &[&Value],
    found: &Value,
    at: &str,
    faults: &mut Vec<String>,
) {
    let mut all = Vec::new();
    schemas.iter().for_each(|schema| spread(document, schema, &mut all));
    match found {
        Value::Object(fields) => {
            let is_free = all.iter().all(|schema| schema.get("properties").is_none());
            for (name, value) in fields.iter().filter(|_| !is_free) {
                let named: Vec<&Value> =
                    all.iter().filter_map(|schema| schema["properties"].get(name)).collect();
                if named.is_empty() {
                    faults.push(format!("{at}/{name} is not described"));
                }
                undescribed(document, &named, value, &format!("{at}/{name}"), faults);
            }
        }
        Value::Array(items) => {
            let schemas: Vec<&Value> =
                all.iter().filter_map(|schema| schema.get("items")).collect();
            for (index, item) in items.iter().enumerate() {
                undescribed(document, &schemas, item, &format!("{at}/{index}"), faults);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// All schemas that a schema is put together from.
fn spread<'a>(document: &'a Value, schema: &'a Value, all: &mut Vec<&'a Value>) {
    let schema = resolve(document, schema);
    all.push(schema);
    for key in ["allOf", "oneOf", "anyOf"] {
        for part in schema[key].as_array().into_iter().flatten() {
            spread(document, part, all);
        }
    }
}
