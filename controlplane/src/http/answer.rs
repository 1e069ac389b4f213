//! Successes of the HTTP API: `{"data": …, "meta": …}`.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, ETAG, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use postern_shared::wire::v1::Meta;
use serde::Serialize;

use crate::http::etag::EntityTag;
use crate::http::limit::Standing;
use crate::http::paging::Cursor;
use crate::http::problem::ApiError;

/// A success, to be returned by a handler.
#[derive(Debug)]
pub struct Answer {
    status: StatusCode,
    data: Result<Bytes, serde_json::Error>,
    next: Option<Cursor>,
    headers: HeaderMap,
}

/// A success on its way to the border, which adds `meta`.
#[derive(Clone)]
pub(crate) struct PendingAnswer {
    data: Bytes,
    next: Option<Cursor>,
}

impl Answer {
    /// Answers 200 with `data`.
    pub fn ok(data: &impl Serialize) -> Answer {
        Answer::new(StatusCode::OK, data)
    }

    /// Answers 201 with the new object, which is found under `location`.
    pub fn created(location: &str, data: &impl Serialize) -> Answer {
        let mut answer = Answer::new(StatusCode::CREATED, data);
        if let Ok(location) = HeaderValue::from_str(location) {
            answer.headers.insert(LOCATION, location);
        }
        answer
    }

    /// Answers with a page of a list and, unless it is the last one, where the next begins.
    pub fn page(data: &impl Serialize, next: Option<Cursor>) -> Answer {
        Answer { next, ..Answer::new(StatusCode::OK, data) }
    }

    /// Answers with data that was written as JSON before.
    pub(crate) fn written(status: StatusCode, location: Option<&str>, data: Vec<u8>) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(location) = location.and_then(|text| HeaderValue::from_str(text).ok()) {
            headers.insert(LOCATION, location);
        }
        Answer { status, data: Ok(data.into()), next: None, headers }
    }

    /// Names the version of the object in the header `ETag`.
    #[must_use]
    pub fn with_etag(mut self, etag: &EntityTag) -> Answer {
        self.headers.insert(ETAG, etag.to_header());
        self
    }

    /// Lets the client keep the answer, on condition that it asks each time whether it still
    /// holds; without this, no cache may keep it.
    #[must_use]
    pub fn revalidated(mut self) -> Answer {
        self.headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        self
    }

    /// Says in the header how much of the caller's budget is left.
    #[must_use]
    pub fn with_standing(mut self, standing: &Standing) -> Answer {
        standing.write(&mut self.headers);
        self
    }

    fn new(status: StatusCode, data: &impl Serialize) -> Answer {
        let data = serde_json::to_vec(data).map(Bytes::from);
        Answer { status, data, next: None, headers: HeaderMap::new() }
    }
}

impl PendingAnswer {
    /// Writes the whole body.
    pub(crate) fn complete(&self, meta: Meta) -> Result<Vec<u8>, serde_json::Error> {
        let next_cursor = self.next.as_ref().map(Cursor::to_string);
        let meta = serde_json::to_vec(&Meta { next_cursor, ..meta })?;
        // `data` is JSON already: it is not parsed again only to be put into an `Envelope`.
        Ok([b"{\"data\":", self.data.as_ref(), b",\"meta\":", &meta, b"}"].concat())
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let data = match self.data {
            Ok(data) => data,
            Err(error) => return ApiError::internal(error).into_response(),
        };
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.extensions_mut().insert(PendingAnswer { data, next: self.next });
        response
    }
}
