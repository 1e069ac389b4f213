//! How many connections there may be, of one peer and altogether.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::http::limit::Caller;
use crate::server::refusal::Refusal;

/// The seats of all listeners of a server.
#[derive(Debug)]
pub(crate) struct Seats {
    all_max: usize,
    by_peer_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_peer: BTreeMap<Caller, usize>,
}

/// One connection's seat; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    peer: Option<Caller>,
}

impl Seats {
    pub(crate) fn new(all_max: usize, by_peer_max: usize) -> Seats {
        Seats { all_max, by_peer_max, taken: Mutex::default() }
    }

    /// Takes a seat for a connection of `peer`; `None` is counted in the total only.
    pub(crate) fn take(self: &Arc<Seats>, peer: Option<IpAddr>) -> Result<Seat, Refusal> {
        let peer = peer.map(Caller::source);
        let mut taken = self.lock();
        if taken.all >= self.all_max {
            return Err(Refusal::Full);
        }
        if let Some(peer) = peer {
            let of_peer = taken.by_peer.entry(peer).or_default();
            if *of_peer >= self.by_peer_max {
                return Err(Refusal::TooManyOfPeer);
            }
            *of_peer += 1;
        }
        taken.all += 1;
        Ok(Seat { seats: Arc::clone(self), peer })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().expect("nothing panics while it holds this lock")
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        taken.all -= 1;
        let Some(peer) = self.peer else { return };
        if let Some(of_peer) = taken.by_peer.get_mut(&peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.by_peer.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_peer_has_its_share_and_no_more() {
        let seats = Arc::new(Seats::new(10, 2));
        let first = seats.take(peer("203.0.113.7")).unwrap();
        let _second = seats.take(peer("203.0.113.7")).unwrap();

        assert_eq!(seats.take(peer("203.0.113.7")).unwrap_err(), Refusal::TooManyOfPeer);
        let _other = seats.take(peer("203.0.113.8")).unwrap();
        drop(first);
        seats.take(peer("203.0.113.7")).unwrap();
    }

    #[test]
    fn a_v6_network_is_one_peer() {
        let seats = Arc::new(Seats::new(10, 1));
        let _seat = seats.take(peer("2001:db8::1")).unwrap();

        assert_eq!(seats.take(peer("2001:db8::2")).unwrap_err(), Refusal::TooManyOfPeer);
        seats.take(peer("2001:db8:0:1::1")).unwrap();
    }

    #[test]
    fn the_total_holds_for_everybody_and_nothing_is_kept_of_those_who_left() {
        let seats = Arc::new(Seats::new(2, 2));
        let first = seats.take(None).unwrap();
        let second = seats.take(peer("203.0.113.7")).unwrap();

        assert_eq!(seats.take(None).unwrap_err(), Refusal::Full);
        assert_eq!(seats.take(peer("203.0.113.8")).unwrap_err(), Refusal::Full);
        drop((first, second));
        assert!(seats.lock().by_peer.is_empty());
        assert_eq!(seats.lock().all, 0);
    }
}
