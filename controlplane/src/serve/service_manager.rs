//! What the service manager is told, where there is one.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::engine::Engine;

/// Tells the service manager how the daemon is; says nothing where nobody listens.
pub(super) struct ServiceManager {
    watchdog: Option<JoinHandle<()>>,
}

impl ServiceManager {
    /// Says that the daemon is ready, and from now on that the engine lives.
    pub(super) fn ready(engine: &Engine) -> ServiceManager {
        tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
        let watchdog = sd_notify::watchdog_enabled();
        let watchdog = watchdog.map(|limit| tokio::spawn(feed_watchdog(engine.clone(), limit)));
        ServiceManager { watchdog }
    }

    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "cannot tell the service manager of a reload"),
        }
    }

    pub(super) fn reloaded(&self) {
        tell(&[NotifyState::Ready]);
    }

    pub(super) fn stopping(&self) {
        tell(&[NotifyState::Stopping, NotifyState::Status("letting requests finish")]);
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.abort();
        }
    }
}

/// Feeds the watchdog for as long as the writer passes by; nothing else feeds it.
async fn feed_watchdog(engine: Engine, limit: Duration) {
    let mut ticks = interval(limit / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if engine.pass().await.is_err() {
            return;
        }
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot reach the service manager");
    }
}
