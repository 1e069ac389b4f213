//! What happens on one connection, and until when something must happen next.
//!
//! No clock in here: every event comes with its time.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::time::Instant;

use crate::server::limits::Limits;

/// Bytes that a slow client must take within [`Limits::write`] to be kept.
pub const WRITE_PROGRESS_BYTES: usize = 16 * 1024;

/// What to do with a connection now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All is well; look again then.
    Wait(Instant),
    /// It used up its time between requests, or its age: finish what runs, take nothing new.
    GoAway(Reason),
    /// It holds something up: end it.
    Close(Reason),
}

/// Which limit a connection met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    FirstByte,
    Head,
    Idle,
    Write,
    Age,
}

impl Reason {
    /// The reason as a label for logs and metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Reason::FirstByte => "first_byte",
            Reason::Head => "head",
            Reason::Idle => "idle",
            Reason::Write => "write",
            Reason::Age => "age",
        }
    }
}

/// The events of one connection, as far as its limits depend on them.
///
/// | while | it must | within |
/// | --- | --- | --- |
/// | nothing was ever read | send a byte | `first_byte` |
/// | no request was ever complete | finish a head | `head` |
/// | a later head has begun (HTTP/1) | finish it | `head` |
/// | no request runs | begin one | `idle` |
/// | bytes or a frame wait to be sent | take them | `write` |
#[derive(Debug)]
pub(crate) struct Activity {
    started: Instant,
    age_ends: Instant,
    has_read: bool,
    requests_begun: u64,
    requests_running: u32,
    is_http2: bool,
    idle_since: Instant,
    head_since: Option<Instant>,
    blocked: Option<Blocked>,
    /// Frames of answers that were handed over and not yet followed by a question for the next,
    /// by request: HTTP/2 flow control holds them back where no socket blocks.
    handed_over: Vec<(u64, Instant)>,
    /// Bytes that the client took since the frames' time last began anew.
    taken_bytes: usize,
}

#[derive(Debug)]
struct Blocked {
    since: Instant,
    bytes: usize,
}

impl Activity {
    pub(crate) fn new(now: Instant, age_ends: Instant) -> Activity {
        Activity {
            started: now,
            age_ends,
            has_read: false,
            requests_begun: 0,
            requests_running: 0,
            is_http2: false,
            idle_since: now,
            head_since: None,
            blocked: None,
            handed_over: Vec::new(),
            taken_bytes: 0,
        }
    }

    /// Begins behind a TLS handshake: the peer has spoken already, its first request has not
    /// begun.
    pub(crate) fn after_handshake(now: Instant, age_ends: Instant) -> Activity {
        Activity { has_read: true, ..Activity::new(now, age_ends) }
    }

    /// Bytes came.
    pub(crate) fn read(&mut self, now: Instant) {
        self.has_read = true;
        if self.requests_running == 0 && !self.is_http2 {
            self.head_since.get_or_insert(now);
        }
    }

    /// Bytes went, or could not go.
    pub(crate) fn wrote(&mut self, bytes: Option<usize>, now: Instant) {
        let Some(bytes) = bytes else {
            self.blocked.get_or_insert(Blocked { since: now, bytes: 0 });
            return;
        };
        if let Some(blocked) = &mut self.blocked {
            blocked.bytes = blocked.bytes.saturating_add(bytes);
        }
        self.blocked.take_if(|blocked| blocked.bytes >= WRITE_PROGRESS_BYTES);
        self.taken_bytes = self.taken_bytes.saturating_add(bytes);
        if self.taken_bytes >= WRITE_PROGRESS_BYTES {
            self.taken_bytes = 0;
            self.handed_over.iter_mut().for_each(|(_, since)| *since = now);
        }
    }

    /// Nothing is left to be sent.
    pub(crate) fn flushed(&mut self) {
        self.blocked = None;
    }

    /// A request's head is complete. Returns the request's number on this connection.
    pub(crate) fn begin(&mut self, is_http2: bool) -> u64 {
        self.is_http2 = is_http2;
        self.head_since = None;
        self.requests_running += 1;
        self.requests_begun += 1;
        self.requests_begun
    }

    /// A part of the answer to request `number` was handed over to be sent.
    pub(crate) fn hand_over(&mut self, number: u64, now: Instant) {
        // HTTP/1 writes one answer after the other: there the socket tells.
        if self.is_http2 {
            self.take_next(number);
            self.handed_over.push((number, now));
        }
    }

    /// The next part of the answer is asked for: the last one is on its way.
    pub(crate) fn take_next(&mut self, number: u64) {
        self.handed_over.retain(|(other, _)| *other != number);
    }

    /// The request is over, answered or not.
    pub(crate) fn end(&mut self, number: u64, now: Instant) {
        self.take_next(number);
        self.requests_running -= 1;
        if self.requests_running == 0 {
            self.idle_since = now;
        }
    }

    /// Judges the connection at `now`. Before the time of [`Verdict::Wait`] no event can lead to
    /// another verdict.
    pub(crate) fn verdict(&self, limits: &Limits, now: Instant) -> Verdict {
        let held_up = if !self.has_read {
            (self.started + limits.first_byte, Reason::FirstByte)
        } else if self.requests_begun == 0 {
            (self.started + limits.head, Reason::Head)
        } else {
            self.head_since.map_or((now + limits.head, Reason::Head), |since| {
                (since + limits.head, Reason::Head)
            })
        };
        let oldest_frame = self.handed_over.iter().map(|(_, since)| *since).min();
        let blocked = self.blocked.as_ref().map(|blocked| blocked.since);
        let unsent = [oldest_frame, blocked].into_iter().flatten().min().unwrap_or(now);
        let unsent = (unsent + limits.write, Reason::Write);

        let waits_for_head = self.requests_begun == 0 || self.head_since.is_some();
        let is_idle = self.requests_running == 0 && !waits_for_head;
        let idle = if is_idle { self.idle_since } else { now } + limits.idle;

        for (deadline, reason) in [held_up, unsent] {
            if deadline <= now {
                return Verdict::Close(reason);
            }
        }
        for (deadline, reason) in [(idle, Reason::Idle), (self.age_ends, Reason::Age)] {
            if deadline <= now {
                return Verdict::GoAway(reason);
            }
        }
        Verdict::Wait(held_up.0.min(unsent.0).min(idle).min(self.age_ends))
    }
}

/// The activity of a connection, shared between its socket, its requests and its watch.
#[derive(Clone)]
pub(crate) struct SharedActivity(Arc<Mutex<Activity>>);

impl SharedActivity {
    pub(crate) fn new(activity: Activity) -> SharedActivity {
        SharedActivity(Arc::new(Mutex::new(activity)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Activity> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

impl fmt::Debug for SharedActivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedActivity").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: Limits = Limits {
        first_byte: Duration::from_secs(1),
        head: Duration::from_secs(2),
        idle: Duration::from_secs(10),
        write: Duration::from_secs(5),
        age: Duration::from_secs(1_000),
        ..Limits::PUBLIC
    };

    struct Scene {
        start: Instant,
        activity: Activity,
    }

    impl Scene {
        fn new() -> Scene {
            let start = Instant::now();
            Scene { start, activity: Activity::new(start, start + LIMITS.age) }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        /// The verdict that ends the waiting from `ms` on, and when, if nothing else happens.
        fn fate(&self, ms: u64) -> (u64, Verdict) {
            let mut now = self.at(ms);
            loop {
                match self.activity.verdict(&LIMITS, now) {
                    Verdict::Wait(until) => {
                        assert!(now < until, "waits for a time that is past");
                        now = until;
                    }
                    verdict @ (Verdict::GoAway(_) | Verdict::Close(_)) => {
                        let after = now - self.start;
                        return (u64::try_from(after.as_millis()).unwrap(), verdict);
                    }
                }
            }
        }
    }

    #[test]
    fn who_says_nothing_is_closed_first() {
        let scene = Scene::new();

        assert_eq!(scene.fate(0), (1_000, Verdict::Close(Reason::FirstByte)));
    }

    #[test]
    fn the_first_head_has_its_time_however_many_bytes_come() {
        let mut scene = Scene::new();

        for ms in (0..1_900).step_by(100) {
            scene.activity.read(scene.at(ms));
        }

        assert_eq!(scene.fate(1_900), (2_000, Verdict::Close(Reason::Head)));
    }

    #[test]
    fn a_later_head_has_its_time_from_its_first_byte() {
        let mut scene = Scene::new();
        scene.activity.read(scene.at(0));
        let number = scene.activity.begin(false);
        scene.activity.end(number, scene.at(100));

        assert_eq!(scene.fate(100), (10_100, Verdict::GoAway(Reason::Idle)));
        scene.activity.read(scene.at(9_000));
        scene.activity.read(scene.at(10_000));
        assert_eq!(scene.fate(10_000), (11_000, Verdict::Close(Reason::Head)));
    }

    #[test]
    fn pings_are_no_head() {
        let mut scene = Scene::new();
        scene.activity.read(scene.at(0));
        let number = scene.activity.begin(true);
        scene.activity.end(number, scene.at(100));

        scene.activity.read(scene.at(1_000));

        assert_eq!(scene.fate(1_000), (10_100, Verdict::GoAway(Reason::Idle)));
    }

    #[test]
    fn a_request_that_runs_is_left_alone_until_the_age_ends() {
        let mut scene = Scene::new();
        scene.activity.read(scene.at(0));
        scene.activity.begin(true);

        assert_eq!(scene.fate(0), (1_000_000, Verdict::GoAway(Reason::Age)));
    }

    #[test]
    fn a_client_that_takes_too_little_is_closed() {
        let mut scene = Scene::new();
        scene.activity.read(scene.at(0));
        scene.activity.begin(false);

        scene.activity.wrote(None, scene.at(1_000));
        scene.activity.wrote(Some(WRITE_PROGRESS_BYTES - 1), scene.at(5_000));

        assert_eq!(scene.fate(5_000), (6_000, Verdict::Close(Reason::Write)));
        scene.activity.wrote(Some(1), scene.at(5_500));
        scene.activity.wrote(None, scene.at(5_500));
        assert_eq!(scene.fate(5_500), (10_500, Verdict::Close(Reason::Write)));
        scene.activity.flushed();
        assert_eq!(scene.fate(10_400), (1_000_000, Verdict::GoAway(Reason::Age)));
    }

    #[test]
    fn a_frame_that_flow_control_holds_back_counts_as_unsent() {
        let mut scene = Scene::new();
        scene.activity.read(scene.at(0));
        let slow = scene.activity.begin(true);
        let fast = scene.activity.begin(true);

        scene.activity.hand_over(slow, scene.at(1_000));
        scene.activity.hand_over(fast, scene.at(2_000));
        scene.activity.take_next(fast);

        assert_eq!(scene.fate(3_000), (6_000, Verdict::Close(Reason::Write)));
        scene.activity.wrote(Some(WRITE_PROGRESS_BYTES), scene.at(4_000));
        assert_eq!(scene.fate(4_000), (9_000, Verdict::Close(Reason::Write)));
        scene.activity.end(slow, scene.at(5_000));
        assert_eq!(scene.fate(5_000), (1_000_000, Verdict::GoAway(Reason::Age)));
    }
}
