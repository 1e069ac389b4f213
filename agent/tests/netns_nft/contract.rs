//! The contract of targets, of each way to use nftables.

use std::collections::BTreeMap;
use std::time::Duration;

use postern_agent::target::nft::{
    GateTarget, NftOptions, Ownership, SetsConfig, SetsTarget, TableFamily,
};
use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::time::Timestamp;

use crate::netns::{self, group, kernel_entries, nft, try_run};
use crate::promises::{self, Subject};
use crate::sets::elements;
use crate::{gate, sets};

struct Gate {
    ownership: Ownership,
    options: NftOptions,
}

impl Subject for Gate {
    type Target = GateTarget;

    fn group(&self) -> GroupId {
        group(1)
    }

    fn start(&self) -> GateTarget {
        GateTarget::new("gate", gate::config(self.ownership), self.options).unwrap()
    }

    fn in_force(&self) -> BTreeMap<Network, Duration> {
        let entries = kernel_entries(group(1)).into_iter();
        entries.map(|(network, left)| (network.parse().unwrap(), netns::secs(left))).collect()
    }

    fn meddle(&self) -> bool {
        let set = netns::kernel_sets("postern").remove(0);
        try_run("nft", &[&format!("add element inet postern {set} {{ 10.6.6.6 timeout 1h }}")]).0
    }

    fn now(&self) -> Timestamp {
        netns::now()
    }
}

struct Sets;

impl Subject for Sets {
    type Target = SetsTarget;

    fn group(&self) -> GroupId {
        group(1)
    }

    fn start(&self) -> SetsTarget {
        let config = SetsConfig {
            family: TableFamily::Inet,
            table: "filter".to_owned(),
            v4_set: Some("friends4".to_owned()),
            v6_set: Some("friends6".to_owned()),
            groups: vec![group(1)],
        };
        SetsTarget::new("sets", config, NftOptions::default()).unwrap()
    }

    fn in_force(&self) -> BTreeMap<Network, Duration> {
        let all = elements("friends4").into_iter().chain(elements("friends6"));
        all.map(|(network, left)| (network.parse().unwrap(), netns::secs(left))).collect()
    }

    fn meddle(&self) -> bool {
        nft("add element inet filter friends4 { 10.6.6.6 timeout 1h }");
        true
    }

    fn now(&self) -> Timestamp {
        netns::now()
    }
}

#[tokio::test]
async fn an_owned_gate_keeps_the_contract() {
    netns::require();
    promises::holds(&Gate { ownership: Ownership::Auto, options: NftOptions::default() }).await;
}

#[tokio::test]
async fn a_plain_gate_keeps_the_contract() {
    netns::require();
    promises::holds(&Gate { ownership: Ownership::Off, options: NftOptions::default() }).await;
}

#[tokio::test]
async fn a_gate_on_an_old_kernel_without_privilege_keeps_the_contract() {
    netns::require();
    let options = NftOptions {
        no_owner: true,
        no_destroy: true,
        send_bytes: Some(8192),
        receive_bytes: Some(65_536),
    };
    promises::holds(&Gate { ownership: Ownership::Off, options }).await;
}

#[tokio::test]
async fn sets_without_intervals_keep_the_contract() {
    netns::require();
    sets::declare("timeout");
    promises::holds(&Sets).await;
}

#[tokio::test]
async fn sets_with_intervals_keep_the_contract() {
    netns::require();
    sets::declare("interval, timeout");
    promises::holds(&Sets).await;
}
