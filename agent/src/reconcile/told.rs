//! What the log says of a pass: whom it let in and whom it shut out, in a line for each group.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use postern_shared::ids::GroupId;
use postern_shared::plan::Plan;

/// Most networks that a line names; the rest is counted.
const NAMED_MAX: usize = 8;

/// Logs what was carried out. An entry that closed at its deadline is in no plan: the kernel closed
/// it.
pub(super) fn log(target_name: &str, plans: &BTreeMap<GroupId, Plan>) {
    for (group, plan) in plans {
        if let Some(networks) = networks(plan) {
            let (opened, closed) = (plan.add.len(), plan.remove.len());
            tracing::info!(target_name, %group, opened, closed, networks, "entries changed");
        }
    }
}

/// Names the first networks. `None` where entries only got other deadlines, as every heartbeat
/// gives them.
fn networks(plan: &Plan) -> Option<String> {
    let opened = plan.add.keys().map(|network| ('+', network));
    let closed = plan.remove.keys().map(|network| ('-', network));
    let mut text = String::new();
    for (sign, network) in opened.chain(closed).take(NAMED_MAX) {
        let between = if text.is_empty() { "" } else { " " };
        write!(text, "{between}{sign}{network}").expect("a string takes any text");
    }
    let count = plan.add.len() + plan.remove.len();
    if NAMED_MAX < count {
        write!(text, " and {} more", count - NAMED_MAX).expect("a string takes any text");
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use postern_shared::time::Expiry;

    use super::*;
    use crate::testing::host;

    #[test]
    fn a_line_names_a_few_networks_and_counts_the_rest() {
        let entries =
            |range: std::ops::Range<u32>| range.map(|n| (host(n), Expiry::Never)).collect();
        let few = Plan { add: entries(1..2), remove: entries(2..3), ..Plan::default() };
        let many = Plan { add: entries(0..200), ..Plan::default() };

        assert_eq!(networks(&few).unwrap(), format!("+{} -{}", host(1), host(2)));
        assert!(networks(&many).unwrap().ends_with(" and 192 more"));
    }

    #[test]
    fn a_heartbeat_is_no_line() {
        let renewed = Plan { renew: [(host(1), Expiry::Never)].into(), ..Plan::default() };

        assert_eq!(networks(&renewed), None);
    }
}
