//! Heartbeats beside a handler that does nothing; durable moves beside redb alone.

use std::path::Path;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::figure::Figure;
use crate::floors::{self, CommitShape};
use crate::load;
use crate::plane::{self, NOTHING, Plane};

const CLIENTS: usize = 200;
const ROUND: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;

pub(crate) fn figures(folder: &Path) -> anyhow::Result<Vec<Figure>> {
    // Server and clients each have threads of their own, as they would on two machines.
    let (server, clients) = (runtime()?, runtime()?);
    let plane = server.block_on(Plane::start(folder))?;
    let bookmarks = server.block_on(async {
        let mut bookmarks = Vec::new();
        for _ in 0..CLIENTS {
            bookmarks.push(plane.pair(false).await?.expose().to_owned());
        }
        anyhow::Ok(bookmarks)
    })?;
    let heartbeats = heartbeats(&plane, &clients, &bookmarks)?;
    let moves = moves(&plane, (&server, &clients), &bookmarks, folder)?;
    clients.shutdown_background();
    server.shutdown_background();
    Ok(vec![moves, heartbeats])
}

fn heartbeats(plane: &Plane, clients: &Runtime, bookmarks: &[String]) -> anyhow::Result<Figure> {
    let at_home = |client: usize| plane::address(client, 1).to_string();
    let nothing: Vec<String> =
        (0..CLIENTS).map(|client| load::post(NOTHING, &at_home(client))).collect();
    let beacons: Vec<String> = bookmarks
        .iter()
        .enumerate()
        .map(|(client, bookmark)| load::post(&format!("/b/{bookmark}"), &at_home(client)))
        .collect();
    let rate = |server, requests: &Vec<String>| -> anyhow::Result<f64> {
        let requests = requests.clone();
        let next = move |client: usize, _| requests[client].clone();
        let answered = clients.block_on(load::run(server, CLIENTS, ROUND, next))?;
        Ok(answered as f64 / ROUND.as_secs_f64())
    };
    rate(plane.address, &beacons)?; // the first report of each pair is a move
    let (mut ours, mut floor) = (0.0, 0.0);
    for _ in 0..ROUNDS {
        floor += rate(plane.floor, &nothing)? / ROUNDS as f64;
        ours += rate(plane.address, &beacons)? / ROUNDS as f64;
    }
    Ok(Figure::new("heartbeats_per_s", ours, "1/s").with_floor(floor))
}

fn moves(
    plane: &Plane,
    (server, clients): (&Runtime, &Runtime),
    bookmarks: &[String],
    folder: &Path,
) -> anyhow::Result<Figure> {
    let (mut ours, mut floor) = (0.0, 0.0);
    for part in 0..ROUNDS {
        let bookmarks = bookmarks.to_vec();
        let next = move |client: usize, round: u64| {
            let elsewhere = plane::address(client, ((part as u64) << 20) + round + 2).to_string();
            load::post(&format!("/b/{}", bookmarks[client]), &elsewhere)
        };
        let before = server.block_on(plane.revision())?;
        let answered = clients.block_on(load::run(plane.address, CLIENTS, ROUND, next))?;
        let commits = server.block_on(plane.revision())? - before;
        ours += answered as f64 / ROUND.as_secs_f64() / ROUNDS as f64;
        let shape = CommitShape {
            changes: (answered / commits.max(1)).max(1) as usize,
            ..CommitShape::of_a_move()
        };
        floor += floors::redb_alone(folder, shape, ROUND)? / ROUNDS as f64;
    }
    Ok(Figure::new("durable_moves_per_s", ours, "1/s").with_floor(floor))
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(2).enable_all().build()
}
