//! Reads the configuration, key by key.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use postern_shared::document::{
    self, Mistake, Reader, Scalar, boolean, number_in, span, suggestion, text,
};
use postern_shared::policy::LocalPolicy;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{ParseError, Targets};

use super::kind::KINDS;
use super::{Claim, Config, GroupRef, LogConfig, LogFormat, PlaneConfig, TargetConfig, cloudflare};
use crate::commands::Commands;
use crate::target::marked::Mark;
use crate::target::nft::{Ports, Protocol};

/// Longest name of a target, a service, a table or a set.
const NAME_BYTES_MAX: usize = 64;

/// What the targets above have taken.
#[derive(Debug, Default)]
struct Above {
    names: BTreeSet<String>,
    /// With the names of the targets.
    claims: Vec<(String, Claim)>,
    lacking: Vec<Mistake>,
}

/// Reads a configuration, or names all that is wrong with it.
pub(super) fn config(source: &str) -> Result<Config, Vec<Mistake>> {
    document::read(source, |reader| {
        let plane = reader.optional_mapping("plane", plane).unwrap_or_default();
        let state_dir = reader.optional("state_dir", text::<PathBuf>);
        let control = reader.optional("control", text::<PathBuf>);
        let commands = reader.optional("commands", text::<Commands>).unwrap_or_default();
        let log = reader.optional_mapping("log", log).unwrap_or_default();
        let metrics_file = reader
            .optional("metrics_file", file_path("/var/lib/node_exporter/textfile/postern.prom"));
        let failsafe = reader.list("failsafe", text);
        let policy = reader.optional_mapping("policy", policy).unwrap_or_default();
        let mut above = Above::default();
        let mut is_empty = true;
        let targets = reader.mappings("targets", |reader| {
            is_empty = false;
            target(reader, &mut above, &commands)
        });
        if is_empty {
            reader.reject("targets", "holds no target; an agent without one does nothing");
        }
        if let Some(why) = cloudflare::overspent(&targets) {
            reader.reject("targets", why);
        }
        let default = Config::default();
        Some(Config {
            plane,
            state_dir: state_dir.unwrap_or(default.state_dir),
            control: control.unwrap_or(default.control),
            commands: commands.clone(),
            log,
            metrics_file,
            policy: LocalPolicy { failsafe, ..policy },
            targets,
            lacking: above.lacking,
        })
    })
}

/// Reads where the agent listens, whatever else is wrong; where not even the syntax is right, out of
/// the line alone.
pub(super) fn control(source: &str) -> Option<PathBuf> {
    let within = |source: &str| {
        let mut found = None;
        // All other keys are mistakes to this reader.
        drop(document::read(source, |reader| {
            found = reader.optional("control", text::<PathBuf>);
            Some(())
        }));
        found
    };
    within(source).or_else(|| within(source.lines().find(|line| line.starts_with("control:"))?))
}

#[expect(clippy::unnecessary_wraps, reason = "a reader of a mapping answers an option")]
fn plane(reader: &mut Reader<'_>) -> Option<PlaneConfig> {
    let url = reader.optional("url", text);
    let credential = reader.optional("credential", text::<PathBuf>);
    Some(PlaneConfig { url, credential })
}

#[expect(clippy::unnecessary_wraps, reason = "a reader of a mapping answers an option")]
fn log(reader: &mut Reader<'_>) -> Option<LogConfig> {
    let default = LogConfig::default();
    let filter = reader.optional("filter", |scalar| targets(&text::<String>(scalar)?));
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = reader.optional("format", one_of(&formats));
    Some(LogConfig {
        filter: filter.unwrap_or(default.filter),
        format: format.unwrap_or(default.format),
    })
}

/// Reads levels, each for a library or for all. A lone word is a level: `Targets` itself takes any
/// other for a library, and would log nothing.
fn targets(filter: &str) -> Result<Targets, String> {
    let is_level = |part: &&str| part.contains('=') || part.parse::<LevelFilter>().is_ok();
    let read = match filter.split(',').find(|part| !is_level(part)) {
        Some(part) => Err(format!("`{part}` is no level")),
        None => filter.parse().map_err(|error: ParseError| error.to_string()),
    };
    read.map_err(|error| format!("{error}; write such as `info` or `warn,postern_agent=debug`"))
}

#[expect(clippy::unnecessary_wraps, reason = "a reader of a mapping answers an option")]
fn policy(reader: &mut Reader<'_>) -> Option<LocalPolicy> {
    let default = LocalPolicy::default();
    let widest_v4 = reader.optional("widest_v4", number_in(0..=32));
    let widest_v6 = reader.optional("widest_v6", number_in(0..=128));
    let entries_max = reader.optional("entries_max", number_in(1..=LocalPolicy::ENTRIES_MAX));
    let ttl_max = reader.optional("ttl_max", span);
    let denied = reader.list("denied", text);
    let allow_private = reader.optional("allow_private", boolean);
    Some(LocalPolicy {
        widest_v4: widest_v4.unwrap_or(default.widest_v4),
        widest_v6: widest_v6.unwrap_or(default.widest_v6),
        entries_max: entries_max.unwrap_or(default.entries_max),
        ttl_max: ttl_max.unwrap_or(default.ttl_max),
        denied,
        allow_private: allow_private.unwrap_or(default.allow_private),
        failsafe: default.failsafe,
    })
}

fn target(reader: &mut Reader<'_>, above: &mut Above, commands: &Commands) -> Option<TargetConfig> {
    let name = unique_name(reader, &mut above.names);
    let Some(read) = reader.required("type", one_of(KINDS)) else {
        // Nobody can say which other keys there may be.
        reader.leave_rest();
        return None;
    };
    let kind = read(reader, name.as_deref());
    let target = TargetConfig { name: name?, kind: kind?, commands: commands.clone() };
    above.claim(reader, &target);
    let lacks = target.kind.as_kind().lacks();
    above.lacking.extend(lacks.map(|why| reader.mistake("type", why)));
    Some(target)
}

impl Above {
    /// Rejects what a target above keeps as well.
    fn claim(&mut self, reader: &mut Reader<'_>, target: &TargetConfig) {
        let claims = target.kind.as_kind().claims();
        for claim in &claims {
            let refusal = |(name, other): &(String, Claim)| claim.refusal(other, name);
            if let Some(refusal) = self.claims.iter().find_map(refusal) {
                reader.reject(claim.key, refusal);
            }
        }
        self.claims.extend(claims.into_iter().map(|claim| (target.name.clone(), claim)));
    }
}

pub(super) fn groups(reader: &mut Reader<'_>) -> Vec<GroupRef> {
    filled_list(reader, "groups", text, "holds no group; without one nobody ever gets in")
}

/// Reads the groups of a target whose entries name them.
pub(super) fn marked_groups(reader: &mut Reader<'_>) -> Vec<GroupRef> {
    let groups = groups(reader);
    if Mark::GROUPS_MAX < groups.len() {
        let most = Mark::GROUPS_MAX;
        reader.reject("groups", format!("holds more than {most}: a description holds no more"));
    }
    groups
}

/// Reads where an API is: encrypted, or on this host.
pub(super) fn endpoint(scalar: Scalar<'_>) -> Result<String, String> {
    const FORM: &str = "is no address; write such as https://api.example, or http://127.0.0.1:5000";
    let written: String = text(scalar)?;
    let url: reqwest::Url = written.parse().map_err(|_| FORM)?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match url.scheme() {
        "https" => Ok(written),
        "http" if is_here => Ok(written),
        _ => Err(FORM.to_owned()),
    }
}

/// Reads a list that must have items; one whose items are all wrong is not empty.
pub(super) fn filled_list<T>(
    reader: &mut Reader<'_>,
    key: &'static str,
    parse: impl Fn(Scalar<'_>) -> Result<T, String>,
    empty: &str,
) -> Vec<T> {
    let is_empty = Cell::new(true);
    let items = reader.list(key, |scalar| {
        is_empty.set(false);
        parse(scalar)
    });
    if is_empty.get() {
        reader.reject(key, empty);
    }
    items
}

pub(super) fn unique_name(reader: &mut Reader<'_>, names: &mut BTreeSet<String>) -> Option<String> {
    let found = reader.required("name", name)?;
    if names.insert(found.clone()) {
        return Some(found);
    }
    reader.reject("name", format!("`{found}` is taken by one above"));
    None
}

/// Reads a name that nftables can show.
pub(super) fn name(scalar: Scalar<'_>) -> Result<String, String> {
    let name: String = text(scalar)?;
    let fits = name.len() <= NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(|char| char.is_ascii_alphanumeric() || "-_".contains(char));
    if fits {
        return Ok(name);
    }
    Err(format!(
        "is no name; write a letter and then letters, digits, `-` and `_`, at most {NAME_BYTES_MAX}"
    ))
}

/// Reads where a file is that is no folder's, whoever reads this; `example` is such a one.
pub(super) fn file_path(example: &str) -> impl Fn(Scalar<'_>) -> Result<PathBuf, String> {
    move |scalar| {
        let path: PathBuf = text(scalar)?;
        let is_plain = path.is_absolute()
            && path.file_name().is_some()
            && !path.to_string_lossy().ends_with('/')
            && !path.components().any(|part| part == std::path::Component::ParentDir);
        if is_plain {
            return Ok(path);
        }
        Err(format!("is no absolute path of a file; write such as {example}"))
    }
}

/// Reads one of some words; where it is none, names the one that is meant, or all.
pub(super) fn one_of<T: Copy>(words: &[(&str, T)]) -> impl Fn(Scalar<'_>) -> Result<T, String> {
    move |scalar| {
        let word: String = text(scalar)?;
        let found = words.iter().find(|(known, _)| *known == word);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(known, _)| *known).collect();
            match suggestion(&word, &known) {
                Some(meant) => format!("is `{word}`; did you mean `{meant}`?"),
                None => format!("is `{word}`; write {}", known.join(" or ")),
            }
        })
    }
}

/// Reads ports of one protocol: `22/tcp`, `60000-61000/udp`.
pub(super) fn ports(scalar: Scalar<'_>) -> Result<Ports, String> {
    const FORM: &str =
        "is no port; write such as 22/tcp or 60000-61000/udp, with numbers from 1 to 65535";
    let written: String = text(scalar)?;
    let (range, protocol) = written.split_once('/').ok_or(FORM)?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(FORM.to_owned()),
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let port = |digits: &str| {
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|port| is_plain && *port != 0).ok_or(FORM)
    };
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err(format!("ends before it begins; write {last}-{first}"));
    }
    Ok(Ports { protocol, first, last })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Nftables, TargetKind};
    use crate::target::aws::AwsAccess;
    use crate::target::cloudflare::Scope;
    use crate::target::nft::{OnExpiry, Ownership};

    const WHOLE: &str = "\
plane:
  url: https://plane.example:8443
  credential: /etc/postern/credential
state_dir: /tmp/state
control: /tmp/control
commands: here
metrics_file: /tmp/postern.prom
log: { filter: debug, format: json }
failsafe: [192.0.2.1]
policy:
  widest_v4: 28
  widest_v6: 56
  entries_max: 1000
  ttl_max: 12h
  denied: [198.51.100.0/24]
  allow_private: false
targets:
  - name: door
    type: nftables
    gate:
      services:
        - name: ssh
          ports: [22/tcp, 60000-61000/udp]
          groups: [ops, 7, 01010101-0101-4101-8101-010101010101]
      on_expiry: cut
      owner: off
  - name: own-rules
    type: nftables
    sets: { family: inet, table: filter, v4_set: allowed, groups: [ops] }
  - name: cloud
    type: aws_security_group
    group_id: sg-0123456789abcdef0
    ports: [22/tcp]
    rules_max: 100
    region: eu-west-1
    endpoint: http://127.0.0.1:5000
    profile: postern
    assume_role: arn:aws:iam::123456789012:role/postern
    calls_per_minute: 30
    owner: edge
    groups: [ops]
  - name: lists
    type: aws_prefix_list
    v4_list: pl-0123456789abcdef4
    v6_list: pl-0123456789abcdef6
    grow_to: 100
    groups: [ops]
  - name: web
    type: cloudflare_list
    account_id: 0123456789abcdef0123456789abcdef
    list_id: fedcba9876543210fedcba9876543210
    items_max: 500
    endpoint: http://127.0.0.1:5001
    token_file: /etc/postern/cloudflare-token
    calls_per_minute: 100
    widen_v6: true
    owner: edge
    groups: [ops]
  - name: zone
    type: cloudflare_access_rule
    zone_id: 0123456789abcdef0123456789abcdef
    groups: [ops]
";

    fn told(source: &str) -> Vec<String> {
        config(source).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_key_is_read() {
        let config = config(WHOLE).unwrap();

        assert_eq!(config.plane.url.unwrap().to_string(), "https://plane.example:8443");
        assert_eq!(config.commands, Commands::Here);
        assert_eq!(config.metrics_file, Some(PathBuf::from("/tmp/postern.prom")));
        assert_eq!(config.log.format, LogFormat::Json);
        assert_eq!(config.policy.ttl_max.as_secs(), 43_200);
        assert_eq!(config.policy.failsafe, ["192.0.2.1".parse().unwrap()]);
        let [door, own, cloud, lists, web, zone] = &config.targets[..] else { panic!("six") };
        let TargetKind::Nftables(Nftables::Gate { services, on_expiry, owner, .. }) = &door.kind
        else {
            panic!("a gate");
        };
        assert_eq!((*on_expiry, *owner), (OnExpiry::Cut, Ownership::Off));
        let udp = Ports { protocol: Protocol::Udp, first: 60_000, last: 61_000 };
        assert_eq!(services[0].ports[1], udp);
        assert_eq!(services[0].groups[0], GroupRef::Name("ops".to_owned()));
        assert_eq!(services[0].groups[1], GroupRef::Number(7));
        assert!(matches!(services[0].groups[2], GroupRef::Id(_)));
        assert_eq!(own.groups(), [&GroupRef::Name("ops".to_owned())]);
        let TargetKind::AwsSecurityGroup(cloud) = &cloud.kind else { panic!("a security group") };
        assert_eq!(cloud.what.group, "sg-0123456789abcdef0");
        assert_eq!((cloud.what.rules_max, cloud.what.ports.len()), (100, 1));
        assert_eq!(cloud.owner, "edge");
        assert_eq!(
            cloud.access,
            AwsAccess {
                region: Some("eu-west-1".to_owned()),
                endpoint: Some("http://127.0.0.1:5000".to_owned()),
                profile: Some("postern".to_owned()),
                assume_role: Some("arn:aws:iam::123456789012:role/postern".to_owned()),
                calls_per_minute: 30,
            }
        );
        let TargetKind::AwsPrefixList(lists) = &lists.kind else { panic!("prefix lists") };
        assert_eq!(lists.what.v4.as_deref(), Some("pl-0123456789abcdef4"));
        assert_eq!(lists.what.v6.as_deref(), Some("pl-0123456789abcdef6"));
        assert_eq!((lists.what.grow_to, lists.owner.as_str()), (Some(100), "lists"));
        assert_eq!(lists.access, AwsAccess::default());
        let TargetKind::CloudflareList(web) = &web.kind else { panic!("a list") };
        assert_eq!(web.what.account, "0123456789abcdef0123456789abcdef");
        assert_eq!(web.what.list, "fedcba9876543210fedcba9876543210");
        assert_eq!((web.what.items_max, web.calls_per_minute), (500, 100));
        assert_eq!(web.endpoint.as_deref(), Some("http://127.0.0.1:5001"));
        assert_eq!(web.token_file, Some(PathBuf::from("/etc/postern/cloudflare-token")));
        assert!(web.widen_v6 && web.owner == "edge");
        let TargetKind::CloudflareAccessRule(zone) = &zone.kind else { panic!("access rules") };
        assert_eq!(zone.what.scope, Scope::Zone("0123456789abcdef0123456789abcdef".to_owned()));
        assert_eq!((zone.what.rules_max, zone.calls_per_minute), (50_000, 30));
        assert!(!zone.widen_v6 && zone.token_file.is_none() && zone.owner == "zone");
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let source = "targets: [{name: a, type: nftables, \
            gate: {services: [{name: b, ports: [1/tcp], groups: [c]}]}}]";

        let config = config(source).unwrap();

        assert_eq!(config.policy, LocalPolicy::default());
        assert_eq!(config.plane, PlaneConfig::default());
        assert_eq!(config.log, LogConfig::default());
        assert_eq!(config.state_dir, PathBuf::from("/var/lib/postern-agent"));
        assert_eq!(config.control, PathBuf::from("/run/postern-agent/control"));
        let unit = PathBuf::from("/run/postern-agent-commands/socket");
        assert_eq!(config.commands, Commands::Unit(unit));
    }

    #[test]
    fn all_mistakes_are_told_at_once_with_their_places() {
        let source = "\
plane: { url: http://plane.example }
polcy: {}
policy: { widest_v4: 33, ttl_max: 7 days, denied: [10.0.0.1/8] }
targets:
  - name: door
    type: nftables
    gate:
      services:
        - { name: ssh, ports: [22], groups: [] }
      owner: maybe
  - name: door
    type: pf
  - { name: a, type: aws_security_group, group_id: web, ports: [], groups: [a, b, c, d, e, f] }
  - { name: b, type: aws_prefix_list, v4: pl-1, endpoint: ftp://x, groups: [a] }
  - { name: c, type: cloudflare_list, account_id: office, list_id: 0123456789abcdef0123456789abcdef, \
endpoint: \"http://127.0.0.1.example\", calls_per_minute: 121, groups: [a] }
  - { name: d, type: cloudflare_access_rule, groups: [a] }
log: { filter: \"inof,h2=warn\" }
";

        let told = told(source);

        for (place, word) in [
            ("1:15: plane.url:", "https"),
            ("2:1: polcy:", "did you mean `policy`"),
            ("3:22: policy.widest_v4:", "0 to 32"),
            ("3:35: policy.ttl_max:", "7d"),
            ("3:52: policy.denied[0]:", "10.0.0.0/8"),
            ("9:32: targets[0].gate.services[0].ports[0]:", "22/tcp"),
            ("9:45: targets[0].gate.services[0].groups:", "nobody"),
            ("10:14: targets[0].gate.owner:", "auto or off"),
            ("11:11: targets[1].name:", "taken"),
            ("12:11: targets[1].type:", "nftables"),
            ("13:52: targets[2].group_id:", "sg-"),
            ("13:64: targets[2].ports:", "no port"),
            ("13:76: targets[2].groups:", "more than 5"),
            ("14:5: targets[3].v4_list:", "missing"),
            ("14:39: targets[3].v4:", "`v4_list`"),
            ("14:59: targets[3].endpoint:", "https"),
            ("15:51: targets[4].account_id:", "32 digits"),
            ("15:112: targets[4].endpoint:", "https"),
            ("15:158: targets[4].calls_per_minute:", "1 to 120"),
            ("16:5: targets[5].zone_id:", "one of two"),
            ("17:16: log.filter:", "`inof` is no level"),
        ] {
            let found = told.iter().any(|line| line.starts_with(place) && line.contains(word));
            assert!(found, "{place} {word}\n{}", told.join("\n"));
        }
        assert_eq!(told.len(), 21, "{}", told.join("\n"));
    }

    #[test]
    fn a_kind_that_is_none_is_one_mistake() {
        let target = |kind| {
            told(&format!(
                "targets: [{{name: a, {kind} group_id: sg-1, ports: [1/tcp], groups: [b]}}]"
            ))
        };

        let meant = "is `aws_securitygroup`; did you mean `aws_security_group`?";
        assert_eq!(target("type: aws_securitygroup,"), [format!("1:27: targets[0].type: {meant}")]);
        let [unlike] = &target("type: pf,")[..] else { panic!("one mistake") };
        assert!(unlike.contains("is `pf`; write nftables or aws_security_group or"), "{unlike}");
        assert_eq!(target(""), ["1:11: targets[0].type: is missing"]);
        let [_, misspelt] = &target("typo: file,")[..] else {
            panic!("what is missing, and where")
        };
        assert!(misspelt.ends_with("typo: is not known here; did you mean `type`?"), "{misspelt}");
    }

    #[test]
    fn a_path_that_is_none_is_told_with_one_that_fits() {
        let told = told(
            "metrics_file: postern.prom\ntargets: [{name: a, type: file, path: b, \
            format: text, groups: [c]}]",
        );

        assert!(
            told[0].ends_with("such as /var/lib/node_exporter/textfile/postern.prom"),
            "{told:?}"
        );
        assert!(told[1].ends_with("such as /etc/nginx/postern/office.conf"), "{told:?}");
    }

    #[test]
    fn one_token_is_not_spent_by_many_targets() {
        let target = |name: &str, more: &str| {
            format!(
                "  - {{ name: {name}, type: cloudflare_access_rule, groups: [a], \
                 zone_id: 0123456789abcdef0123456789abcdef, calls_per_minute: 100{more} }}\n"
            )
        };
        let (one, other) = (target("a", ""), target("b", ", token_file: /etc/other"));

        let told = told(&format!("targets:\n{one}{}", target("b", "")));

        assert!(told[0].contains("200 calls a minute") && told.len() == 1, "{told:?}");
        config(&format!("targets:\n{one}{other}")).unwrap();
    }

    #[test]
    fn where_the_agent_listens_is_read_whatever_else_is_wrong() {
        let listens = Some(PathBuf::from("/a/socket"));

        assert_eq!(control("polcy: {}\ncontrol: /a/socket\ntargets: 7\n"), listens);
        assert_eq!(control("targets: [\ncontrol: '/a/socket' # ours\n  - }\n"), listens);
        assert_eq!(control("controls: /a/socket\n"), None);
        assert_eq!(control("control: []\n"), None);
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for word in
            ["", "22", "tcp/22", "22/sctp", "0/tcp", "65536/tcp", "+22/tcp", "22-/tcp", "9-8/tcp"]
        {
            ports(Scalar::Text(word)).expect_err(word);
        }
    }
}
