//! A control plane, a protected host with the real agent, and clients with addresses of their own.
//!
//! The host is the namespace of the test; the clients are in the other one, so that their packets
//! come in from outside. The agent is the program itself, the control plane runs in the test's
//! process, behind real sockets and over a real store.

pub(crate) mod clients;
pub(crate) mod host;
pub(crate) mod hostile;
pub(crate) mod kernel;
pub(crate) mod plane;
pub(crate) mod proxy;

use std::time::{Duration, Instant};

use crate::netns::Lab;
use clients::Clients;
use host::{Agent, Host};
use plane::{NewPair, Plane};
use postern_controlplane::clock::{Clock as _, SteadyClock};
use postern_shared::ids::{GroupId, OrgId};
use postern_shared::time::Timestamp;

/// A wait longer than this means that what is waited for will not come. The agent takes a stream for dead
/// that was silent for 40 seconds, and then some to come back; debug builds on two busy cores are slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(70);

/// Let in by nobody.
pub(crate) const STRANGER: &str = "198.51.100.99";

/// Everything that most tests begin with: an org with one group, and a host enrolled for it.
///
/// The fields are dropped in their order: the network goes last.
pub(crate) struct World {
    pub(crate) host: Host,
    pub(crate) plane: Plane,
    pub(crate) clients: Clients,
    pub(crate) org: OrgId,
    pub(crate) group: GroupId,
    pub(crate) _lab: Lab,
}

impl World {
    /// Makes all of it; no agent runs yet.
    pub(crate) fn new() -> World {
        World::with_policy("")
    }

    /// The same, with these lines of the agent's local policy.
    pub(crate) fn with_policy(policy: &str) -> World {
        World::with(policy, Duration::ZERO)
    }

    /// The same, with a plane whose clock is behind the host's.
    pub(crate) fn with(policy: &str, behind: Duration) -> World {
        let lab = Lab::new();
        let clients = Clients::new(&lab);
        let plane = Plane::with_clock_behind(behind);
        let org = plane.org();
        let group = plane.group(org, "web");
        let host = Host::new(policy);
        host.enrol(&plane.invite(org, &[group]));
        World { host, plane, clients, org, group, _lab: lab }
    }

    /// Starts the agent and waits until the door is closed to those whom nobody let in.
    pub(crate) fn start(&self) -> Agent {
        let agent = self.host.start();
        self.closes(STRANGER);
        agent
    }

    /// A pair that is a member of the group.
    pub(crate) fn member(&self, ttl_secs: u64) -> NewPair {
        let pair = self.plane.pair(self.org, ttl_secs);
        self.plane.add_pair(self.org, self.group, pair.id);
        pair
    }

    /// Waits until the door is open to `source`; answers how long that took.
    pub(crate) fn opens(&self, source: &str) -> Duration {
        self.clients.opens(source)
    }

    /// Waits until the door is closed to `source`; answers how long that took.
    pub(crate) fn closes(&self, source: &str) -> Duration {
        self.clients.closes(source)
    }
}

/// The time, as the plane's and the agent's clocks tell it where neither is wrong.
pub(crate) fn now() -> Timestamp {
    SteadyClock::start(Timestamp::EPOCH).now()
}

/// Waits until `condition` holds; answers how long that took.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "should be by now: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
    started.elapsed()
}
