//! What moto does as EC2 does it: rules of both families, tags, the quota, entries of lists.

use aws_sdk_ec2::config::{BehaviorVersion, Builder, Credentials, Region};
use postern_agent::target::TargetError;
use postern_agent::target::aws::{
    Ec2, OWNER_TAG, PrefixLists, PrefixListsConfig, SecurityGroup, SecurityGroupConfig,
};
use postern_agent::target::marked::{Edits, Provider as _};
use postern_agent::target::nft::{Ports, Protocol};

use crate::moto::Moto;

/// Our way to moto.
fn client(moto: &Moto) -> Ec2 {
    let config = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(Credentials::new("moto", "moto", None, None, "moto"))
        .endpoint_url(&moto.url);
    Ec2::over(config, 600)
}

fn ports(first: u16, last: u16) -> Ports {
    Ports { protocol: Protocol::Tcp, first, last }
}

fn edits(remove: &[&str], put: &[&str]) -> Edits {
    Edits {
        remove: remove.iter().map(|network| network.parse().unwrap()).collect(),
        put: put
            .iter()
            .map(|network| (network.parse().unwrap(), "postern web1 x".to_owned()))
            .collect(),
    }
}

#[tokio::test]
async fn rules_come_and_go_and_others_stay() {
    let moto = Moto::start();
    let group = moto.make_group().await;
    let foreign = [
        ("Action", "AuthorizeSecurityGroupIngress"),
        ("GroupId", &group),
        ("IpPermissions.1.IpProtocol", "tcp"),
        ("IpPermissions.1.FromPort", "22"),
        ("IpPermissions.1.ToPort", "22"),
        ("IpPermissions.1.IpRanges.1.CidrIp", "203.0.113.9/32"),
        ("IpPermissions.1.IpRanges.1.Description", "postern web1 x"),
    ];
    moto.ask(&foreign).await;
    let config = SecurityGroupConfig {
        group: group.clone(),
        ports: vec![ports(22, 22), ports(60_000, 61_000)],
        rules_max: 60,
    };
    let mut target = SecurityGroup::new(client(&moto), config, "web1");

    target.read().await.unwrap();
    let all = edits(&[], &["198.51.100.7/32", "203.0.113.9/32", "2001:db8::/64"]);
    target.write(&all).await.unwrap();
    let open = moto.rules(&group).await;
    target.read().await.unwrap();
    target.write(&edits(&["198.51.100.7/32", "203.0.113.9/32"], &[])).await.unwrap();

    assert_eq!(
        open,
        [
            "198.51.100.7/32 22-22 postern web1 x web1",
            "198.51.100.7/32 60000-61000 postern web1 x web1",
            "2001:db8::/64 22-22 postern web1 x web1",
            "2001:db8::/64 60000-61000 postern web1 x web1",
            "203.0.113.9/32 22-22 postern web1 x ",
            "203.0.113.9/32 60000-61000 postern web1 x web1",
        ]
    );
    assert_eq!(
        moto.rules(&group).await,
        [
            "2001:db8::/64 22-22 postern web1 x web1",
            "2001:db8::/64 60000-61000 postern web1 x web1",
            "203.0.113.9/32 22-22 postern web1 x ",
        ]
    );
    assert_eq!(OWNER_TAG, "postern:owner");
}

#[tokio::test]
async fn what_does_not_fit_is_said_before_and_refused_as_a_whole() {
    let moto = Moto::start();
    let group = moto.make_group().await;
    let config =
        SecurityGroupConfig { group: group.clone(), ports: vec![ports(22, 22)], rules_max: 60 };
    let mut target = SecurityGroup::new(client(&moto), config, "web1");
    let hosts: Vec<String> = (0..61).map(|last| format!("198.51.100.{last}/32")).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    target.read().await.unwrap();

    let said = target.preview(&edits(&[], &hosts));
    let refused = target.write(&edits(&[], &hosts)).await;
    let rules = moto.rules(&group).await;
    target.write(&edits(&[], &hosts[..60])).await.unwrap();
    // The sixty-first only fits once another is gone.
    target.write(&edits(&hosts[..1], &hosts[60..])).await.unwrap();

    assert!(said.contains("rules now 0 for IPv4, 0 for IPv6; then 61 for IPv4"), "{said}");
    assert!(matches!(refused, Err(TargetError::Full { wanted: 61, capacity: 60 })), "{refused:?}");
    assert_eq!(rules, [""; 0]);
    assert_eq!(moto.rules(&group).await.len(), 60);
}

#[tokio::test]
async fn entries_come_and_go_in_lists_of_both_families() {
    let moto = Moto::start();
    let (v4, v6) = (moto.make_list("IPv4").await, moto.make_list("IPv6").await);
    let config = PrefixListsConfig { v4: Some(v4.clone()), v6: Some(v6.clone()), grow_to: None };
    let mut target = PrefixLists::new(client(&moto), config, "web1");
    target.read().await.unwrap();

    target
        .write(&edits(&[], &["198.51.100.7/32", "203.0.113.0/24", "2001:db8::/64"]))
        .await
        .unwrap();
    let open = moto.entries(&v4).await;
    target.read().await.unwrap();
    target.write(&edits(&["198.51.100.7/32"], &[])).await.unwrap();

    assert_eq!(open, ["198.51.100.7/32 postern web1 x", "203.0.113.0/24 postern web1 x"]);
    assert_eq!(moto.entries(&v4).await, ["203.0.113.0/24 postern web1 x"]);
    assert_eq!(moto.entries(&v6).await, ["2001:db8::/64 postern web1 x"]);
}

#[tokio::test]
async fn a_group_that_is_gone_says_so() {
    let moto = Moto::start();
    let config = SecurityGroupConfig {
        group: "sg-0123456789abcdef0".to_owned(),
        ports: vec![ports(22, 22)],
        rules_max: 60,
    };
    let mut target = SecurityGroup::new(client(&moto), config, "web1");

    let refused = match target.read().await {
        Ok(()) => target.write(&edits(&[], &["198.51.100.7/32"])).await,
        refused => refused,
    };

    let said = refused.unwrap_err().to_string();
    assert!(said.contains("sg-0123456789abcdef0"), "{said}");
}
