//! `/console`: how everything is, at a glance.

use askama::Template;
use axum::Router;
use axum::response::Response;
use axum::routing::get;

use super::Section;
use super::condition::Condition;
use super::gate::Viewer;
use crate::app::App;
use crate::people::HOME;

pub(super) const SECTION: Section = Section { path: HOME, name: "Overview", routes };

#[derive(Template)]
#[template(path = "console/overview.html")]
struct Overview {
    condition: Condition,
    pairs: usize,
    pairs_here: usize,
    groups: usize,
    entries: usize,
}

fn routes() -> Router<App> {
    Router::new().route(HOME, get(show))
}

async fn show(viewer: Viewer) -> Response {
    let condition = Condition::of(&viewer);
    let page = {
        let (state, now) = (viewer.app.engine().state(), viewer.now());
        let org = state.org(viewer.org());
        let pairs = org.into_iter().flat_map(|org| org.pairs.values());
        let is_here = |row: &&crate::domain::PairRow| {
            let spots = row.report.into_iter().flat_map(|report| report.networks());
            row.is_live() && { spots }
                .any(|(network, _)| row.stale_at(network.address()).is_some_and(|at| now < at))
        };
        let groups = org.into_iter().flat_map(|org| org.groups.values());
        let lists = groups.filter_map(|id| state.group(*id)).map(|row| row.list.len_at(now));
        Overview {
            condition,
            pairs: org.map_or(0, |org| org.pairs_live),
            pairs_here: pairs.filter_map(|id| state.pair(*id)).filter(is_here).count(),
            groups: org.map_or(0, |org| org.groups.len()),
            entries: lists.sum(),
        }
    };
    viewer.show("Overview", &page)
}
