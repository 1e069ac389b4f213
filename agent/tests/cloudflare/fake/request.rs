//! A call as Cloudflare gets it.

use std::collections::BTreeMap;

use serde_json::Value;

/// A call, wherever it came from.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Below `/client/v4/`, without the query.
    pub(crate) path: String,
    query: BTreeMap<String, String>,
    pub(crate) body: Option<Value>,
}

impl Request {
    /// Reads a call; `target` is path and query.
    pub(crate) fn read(method: &str, target: &str, body: &[u8]) -> Request {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let body = serde_json::from_slice(body).ok();
        Request { method: method.to_owned(), path: path.to_owned(), query, body }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// A number of the query, or what holds without it.
    pub(crate) fn number(&self, name: &str, default: usize) -> usize {
        self.get(name).and_then(|text| text.parse().ok()).unwrap_or(default)
    }
}
