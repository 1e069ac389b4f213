//! Figures: what is printed, and what is written to `target/bench.json`.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// One measured figure. A floor is what the same machine does, in the same run, without us.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) floor: Option<f64>,
    pub(crate) ratio: Option<f64>,
}

impl Figure {
    pub(crate) fn new(name: &'static str, value: f64, unit: &'static str) -> Figure {
        Figure { name, value, unit, floor: None, ratio: None }
    }

    pub(crate) fn with_floor(self, floor: f64) -> Figure {
        Figure { floor: Some(floor), ratio: Some(self.value / floor), ..self }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:.3} {}", self.name, self.value, self.unit)?;
        if let (Some(floor), Some(ratio)) = (self.floor, self.ratio) {
            write!(f, " floor {floor:.3} ratio {ratio:.3}")?;
        }
        Ok(())
    }
}

/// Times of many runs of the same thing.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<f64>);

impl Times {
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1_000.0);
    }

    pub(crate) fn extend(&mut self, more: Times) {
        self.0.extend(more.0);
    }

    /// The time, in milliseconds, that this part of the runs stayed within.
    pub(crate) fn quantile_ms(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let index = (sorted.len() as f64 * part) as usize;
        sorted[index.min(sorted.len() - 1)]
    }
}
