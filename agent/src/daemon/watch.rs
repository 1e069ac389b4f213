//! Notices when the configuration file changes.

use std::path::Path;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// An editor or a package manager writes in several steps.
const DEBOUNCE: Duration = Duration::from_millis(300);

/// Watches the directory of the file, since a watch on the file ends when it is replaced. Without
/// a watcher (none left in the kernel) SIGHUP still works.
pub(super) fn configuration(path: &Path) -> (Option<RecommendedWatcher>, mpsc::Receiver<()>) {
    let (noticed, mut raw) = mpsc::channel(1);
    let (told, changes) = mpsc::channel(1);
    let file = path.to_owned();
    let on_event = move |event: notify::Result<notify::Event>| {
        let concerns_us = match &event {
            Ok(event) => {
                !matches!(event.kind, EventKind::Access(_))
                    && event.paths.iter().any(|changed| changed.file_name() == file.file_name())
            }
            Err(_) => true,
        };
        if concerns_us {
            // One that waits already stands for this one too.
            let _: Result<_, _> = noticed.try_send(());
        }
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    let watcher = watcher.inspect_err(|error| {
        tracing::warn!(%error, "changes of the configuration are not noticed; send SIGHUP instead");
    });
    tokio::spawn(async move {
        while raw.recv().await.is_some() {
            tokio::time::sleep(DEBOUNCE).await;
            let _: Result<_, _> = raw.try_recv();
            if told.send(()).await.is_err() {
                break;
            }
        }
    });
    (watcher.ok(), changes)
}
