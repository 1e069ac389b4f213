//! What the local policy has to say about a list.

use std::fmt;

use super::Refusal;
use crate::network::Network;

/// What is not as the control plane said, and why. Empty when all of its list is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// The first entries beyond the policy, at most [`Findings::SHOWN_MAX`].
    pub refused: Vec<Refusal>,
    /// How many entries are beyond the policy.
    pub refused_count: usize,
    /// How many entries the list has, where that is more than the policy accepts.
    pub too_many: Option<usize>,
    /// How many entries are within the policy, but not opened: the others make the list suspect,
    /// or their lease ran out while the control plane was not heard.
    pub withheld_count: usize,
    /// The first entries that a new list left out and that are kept open until somebody confirms
    /// it, at most [`Findings::SHOWN_MAX`].
    pub held: Vec<Network>,
    /// How many entries are kept open so.
    pub held_count: usize,
}

impl Findings {
    /// Most entries that are named one by one; the rest is counted.
    pub const SHOWN_MAX: usize = 20;

    /// Says whether all of the list is in force.
    pub fn is_empty(&self) -> bool {
        *self == Findings::default()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        let mut next = || std::mem::replace(&mut between, "; ");
        if let Some(entries) = self.too_many {
            write!(f, "{}the list has {entries} entries, more than the local policy", next())?;
        }
        for refusal in &self.refused {
            write!(f, "{}{refusal}", next())?;
        }
        if self.refused.len() < self.refused_count {
            write!(f, "{}{} more are refused", next(), self.refused_count - self.refused.len())?;
        }
        if 0 < self.withheld_count {
            let why = if self.refused.is_empty() && self.too_many.is_none() {
                "until the control plane is heard again"
            } else {
                "until the list is within the local policy"
            };
            write!(f, "{}not opened {why}: {}", next(), entries(self.withheld_count))?;
        }
        if 0 < self.held_count {
            write!(
                f,
                "{}left out by a new list, but open until `postern-agent accept` or their deadline: {}",
                next(),
                entries(self.held_count)
            )?;
        }
        Ok(())
    }
}

fn entries(count: usize) -> String {
    if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") }
}
