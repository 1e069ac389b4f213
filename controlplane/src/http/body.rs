//! Reading a request's body within its limits.

use std::error::Error;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::http::problem::ApiError;

/// Why the server stopped to read a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyRefused {
    /// It is longer than the server takes.
    #[error("the body is longer than {bytes_max} bytes")]
    TooLarge {
        /// The most bytes that are read.
        bytes_max: usize,
    },
    /// It came too slowly.
    #[error("the body did not arrive within {within:?}")]
    TooSlow {
        /// How long the server waited.
        within: Duration,
    },
}

/// Reads the whole body, `bytes_max` bytes at most; the server's own limits hold as well.
pub async fn read(body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge { bytes_max }),
        Err(error) => Err(match refused(error.as_ref()) {
            Some(BodyRefused::TooLarge { bytes_max }) => ApiError::TooLarge { bytes_max },
            Some(BodyRefused::TooSlow { within }) => ApiError::RequestTimeout { within },
            None => ApiError::BadRequest { detail: "the body ended before its length".into() },
        }),
    }
}

fn refused(error: &(dyn Error + 'static)) -> Option<BodyRefused> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(refused) = error.downcast_ref::<BodyRefused>() {
            return Some(*refused);
        }
        next = error.source();
    }
    None
}
