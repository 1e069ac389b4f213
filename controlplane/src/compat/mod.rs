//! Façades for scripts that were written for other products.

mod ipauth;

use axum::Router;

use crate::app::App;

/// The routes of all façades.
pub(crate) fn routes() -> Router<App> {
    ipauth::routes()
}
