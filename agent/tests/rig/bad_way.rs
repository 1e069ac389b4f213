//! What may go wrong between a client and an API, by chance from a seed.

use std::time::Duration;

use crate::chance::Chance;

/// How bad the way is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hostility {
    /// Once in how many calls something goes wrong; never where it is 0.
    pub(crate) once_in: usize,
    /// How late a call may be.
    pub(crate) delay_max: Duration,
    /// Whether the client is made to wait: where time is not paused, it is not.
    pub(crate) is_slow: bool,
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// It comes late.
    Delay(Duration),
    /// The API asks for patience, and has done nothing.
    Throttled,
    /// 503 in a balancer's words, which are HTML.
    Html,
    /// 200 in the words of somebody who stands in between.
    HtmlAsSuccess,
    /// 500 before or after it was done.
    Failed { was_done: bool },
    /// The connection ends before or after it was done.
    Ended { was_done: bool },
    /// It was done, and half of the answer arrives.
    Cut,
    /// It was done, and no answer ever arrives.
    Silence,
}

impl Hostility {
    pub(crate) const NONE: Hostility =
        Hostility { once_in: 0, delay_max: Duration::from_secs(5), is_slow: true };

    /// Draws what goes wrong with the next call.
    pub(crate) fn draw(self, chance: &mut Chance) -> Option<Fault> {
        if self.once_in == 0 || !chance.once_in(self.once_in) {
            return None;
        }
        let fault = match chance.below(10) {
            0 | 1 => Fault::Delay(chance.up_to(self.delay_max)),
            2 => Fault::Throttled,
            3 => Fault::Html,
            4 => Fault::HtmlAsSuccess,
            5 => Fault::Failed { was_done: chance.once_in(2) },
            6 | 7 => Fault::Ended { was_done: chance.once_in(2) },
            8 => Fault::Cut,
            _ => Fault::Silence,
        };
        let makes_wait = matches!(fault, Fault::Throttled | Fault::Silence);
        Some(if makes_wait && !self.is_slow { Fault::Cut } else { fault })
    }
}
