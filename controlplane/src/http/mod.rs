//! What every route shares: how an answer and a failure look, how bodies and pages are read.
//!
//! A handler returns an [`Answer`] or an [`ApiError`] and knows nothing of request ids; the
//! [border](border::finish) around the router writes them out, since only it knows the id and
//! the time of the request.

pub mod answer;
pub(crate) mod around;
pub mod body;
pub mod border;
pub(crate) mod cookie;
pub mod etag;
pub(crate) mod host;
pub mod json;
pub mod limit;
pub mod paging;
pub mod problem;

pub use answer::Answer;
pub use border::{Border, RequestId};
pub use problem::ApiError;
