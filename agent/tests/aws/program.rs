//! The program itself against moto, with credentials as the SDK's chain finds them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use postern_shared::ids::GroupId;

use crate::moto::Moto;
use crate::somebody::somebody;

/// The program, the configuration that names moto's group, and nothing else that speaks to AWS.
struct Program {
    folder: tempfile::TempDir,
    moto: Moto,
    group: String,
}

impl Program {
    async fn start(more: &str) -> Program {
        let (folder, moto) = (tempfile::tempdir().unwrap(), Moto::start());
        let group = moto.make_group().await;
        let program = Program { folder, moto, group };
        program.configure(&program.moto.url, more);
        program
    }

    fn configure(&self, endpoint: &str, more: &str) {
        let (group, path) = (&self.group, self.folder.path().display());
        let followed = followed();
        let text = format!(
            "state_dir: {path}\ncontrol: {path}/control\ntargets:\n  - name: edge\n    \
             type: aws_security_group\n    group_id: {group}\n    ports: [22/tcp]\n    \
             region: eu-west-1\n    endpoint: {endpoint}\n    groups: [{followed}]\n{more}"
        );
        fs::write(self.path("agent.yaml"), text).unwrap();
    }

    fn run(&self, command: &str, environment: &[(&str, &str)]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_postern-agent"))
            .args([command, "--config"])
            .arg(self.path("agent.yaml"))
            .env_clear()
            .env("HOME", self.folder.path())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(environment.iter().copied())
            .output()
            .unwrap()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        Path::join(self.folder.path(), name)
    }

    /// A rule as an agent left it that has been gone for long, and one of somebody else.
    async fn leave_rules(&self) {
        let mark = format!("postern edge {}=2026-01-01T00:00:00Z", &followed()[..8]);
        for (cidr, description, tag) in
            [("198.51.100.7/32", mark.as_str(), Some("edge")), ("203.0.113.9/32", "office", None)]
        {
            let mut rule = vec![
                ("Action", "AuthorizeSecurityGroupIngress"),
                ("GroupId", &self.group),
                ("IpPermissions.1.IpProtocol", "tcp"),
                ("IpPermissions.1.FromPort", "22"),
                ("IpPermissions.1.ToPort", "22"),
                ("IpPermissions.1.IpRanges.1.CidrIp", cidr),
                ("IpPermissions.1.IpRanges.1.Description", description),
            ];
            if let Some(owner) = tag {
                rule.extend([
                    ("TagSpecification.1.ResourceType", "security-group-rule"),
                    ("TagSpecification.1.Tag.1.Key", "postern:owner"),
                    ("TagSpecification.1.Tag.1.Value", owner),
                ]);
            }
            self.moto.ask(&rule).await;
        }
    }
}

fn followed() -> String {
    GroupId::from_random([7; 16]).to_string()
}

fn said(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap()
}

const KEYS: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "environment"), ("AWS_SECRET_ACCESS_KEY", "environment")];

#[tokio::test]
async fn plan_shows_the_quota_and_what_is_overdue_and_flush_takes_ours_only() {
    let program = Program::start("").await;
    program.leave_rules().await;

    let plan = said(&program.run("plan", &KEYS));
    let before = program.moto.rules(&program.group).await.len();
    let flushed = program.run("flush", &KEYS);

    assert!(plan.contains("rules now 2 for IPv4, 0 for IPv6; then 1 for IPv4"), "{plan}");
    assert!(plan.contains("limit 60") && plan.contains("198.51.100.7/32 22/tcp"), "{plan}");
    assert_eq!(before, 2, "a plan changes nothing");
    assert!(flushed.status.success(), "{}", said(&flushed));
    assert_eq!(program.moto.rules(&program.group).await, ["203.0.113.9/32 22-22 office "]);
}

#[tokio::test]
async fn credentials_come_from_a_profile_too() {
    let program = Program::start("    profile: postern\n").await;
    program.leave_rules().await;
    let keys = "[postern]\naws_access_key_id = profile\naws_secret_access_key = profile\n";
    fs::write(program.path("credentials"), keys).unwrap();
    let file = program.path("credentials").display().to_string();

    let plan = said(&program.run("plan", &[("AWS_SHARED_CREDENTIALS_FILE", &file)]));
    let without = said(&program.run("plan", &[]));

    assert!(plan.contains("rules now 2"), "{plan}");
    assert!(without.contains("no credentials for AWS were found"), "{without}");
    assert!(without.contains("Profile: ") && !without.contains("expired"), "{without}");
}

#[tokio::test]
async fn a_role_is_assumed_with_them() {
    let role = "    assume_role: arn:aws:iam::123456789012:role/postern\n";
    let program = Program::start(role).await;
    program.leave_rules().await;
    let at = |url: &'static str| [KEYS[0], KEYS[1], ("AWS_ENDPOINT_URL_STS", url)];
    let url = program.moto.url.clone();

    let plan = said(&program.run("plan", &[KEYS[0], KEYS[1], ("AWS_ENDPOINT_URL_STS", &url)]));
    let refused = said(&program.run("plan", &at("http://127.0.0.1:9")));
    let without = said(&program.run("plan", &[]));

    assert!(plan.contains("rules now 2"), "{plan}");
    assert!(refused.contains("could not get credentials for AWS"), "{refused}");
    assert!(without.contains("no credentials for AWS were found"), "{without}");
}

#[tokio::test]
async fn without_any_it_says_where_it_looked() {
    let program = Program::start("").await;

    let plan = said(&program.run("plan", &[]));

    for word in ["no credentials for AWS were found", "Environment: ", "Profile: ", "not asked"] {
        assert!(plan.contains(word) && !plan.contains("expired"), "{plan}");
    }
}

#[tokio::test]
async fn whoever_answers_in_place_of_ec2_is_not_believed() {
    const BEGINS: &str = "<DescribeSecurityGroupRulesResponse><securityGroupRuleSet>";
    let program = Program::start("").await;
    program.leave_rules().await;
    for (answer, expected) in [
        (format!("200 OK\r\ncontent-length: 400\r\n\r\n{BEGINS}"), "the answer breaks off"),
        (format!("200 OK\r\n\r\n{BEGINS}"), "the answer breaks off"),
        ("200 OK\r\ncontent-length: 9\r\n\r\n<!DOCTYPE".to_owned(), "HTTP 200: "),
        ("503 Slow Down\r\ncontent-length: 6\r\n\r\n<html>".to_owned(), "HTTP 503: "),
        ("302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n".to_owned(), "HTTP 302: "),
        ("ends here".to_owned(), "dispatch failure: "),
    ] {
        program.configure(&somebody(&answer), "");

        let flushed = program.run("flush", &KEYS);

        let said = said(&flushed);
        assert!(!flushed.status.success() && said.contains(expected), "{answer}: {said}");
    }
    assert_eq!(program.moto.rules(&program.group).await.len(), 2);
}
