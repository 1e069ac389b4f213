//! moto's server: somebody else's idea of EC2, asked in its own words over raw HTTP.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python/bin/moto_server");
/// What EC2's clients send, as far as moto looks at it: who and where.
const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=witness/20261126/eu-west-1/ec2/aws4_request, \
    SignedHeaders=host, Signature=0";

/// A server, until this is dropped.
pub(crate) struct Moto {
    process: Child,
    pub(crate) url: String,
}

impl Moto {
    pub(crate) fn start() -> Moto {
        let mut process = Command::new(PROGRAM)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("moto is there: run `make test`, which installs what is missing");
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let url = lines
            .find_map(|line| Some(line.unwrap().split_once("Running on ")?.1.trim().to_owned()))
            .expect("moto says where it is");
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Moto { process, url }
    }

    /// Asks without our client and without the SDK; answers the XML.
    pub(crate) async fn ask(&self, parameters: &[(&str, &str)]) -> String {
        let query: String = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(parameters)
            .append_pair("Version", "2016-11-15")
            .finish();
        post(&self.url, query.into_bytes()).await.1
    }

    /// Makes a network and a security group in it; answers the group's id.
    pub(crate) async fn make_group(&self) -> String {
        let vpc = self.ask(&[("Action", "CreateVpc"), ("CidrBlock", "10.0.0.0/16")]).await;
        let made = self
            .ask(&[
                ("Action", "CreateSecurityGroup"),
                ("GroupName", "postern"),
                ("GroupDescription", "postern"),
                ("VpcId", &element(&vpc, "vpcId")),
            ])
            .await;
        element(&made, "groupId")
    }

    /// Makes an empty prefix list; answers its id.
    pub(crate) async fn make_list(&self, family: &str) -> String {
        let made = self
            .ask(&[
                ("Action", "CreateManagedPrefixList"),
                ("PrefixListName", "postern"),
                ("MaxEntries", "20"),
                ("AddressFamily", family),
            ])
            .await;
        element(&made, "prefixListId")
    }

    /// The ingress rules of a group, as `cidr first-last description owner`, in order.
    pub(crate) async fn rules(&self, group: &str) -> Vec<String> {
        let told = self
            .ask(&[
                ("Action", "DescribeSecurityGroupRules"),
                ("Filter.1.Name", "group-id"),
                ("Filter.1.Value.1", group),
            ])
            .await;
        let mut rules: Vec<String> = told
            .split("<securityGroupRuleId>")
            .skip(1)
            .filter(|rule| element(rule, "isEgress") == "false")
            .map(|rule| {
                let cidr = element(rule, "cidrIpv4") + &element(rule, "cidrIpv6");
                let ports = [element(rule, "fromPort"), element(rule, "toPort")].join("-");
                [cidr, ports, element(rule, "description"), element(rule, "value")].join(" ")
            })
            .collect();
        rules.sort();
        rules
    }

    /// The entries of a list, as `cidr description`, in order.
    pub(crate) async fn entries(&self, list: &str) -> Vec<String> {
        let told =
            self.ask(&[("Action", "GetManagedPrefixListEntries"), ("PrefixListId", list)]).await;
        let mut entries: Vec<String> = told
            .split("<item>")
            .skip(1)
            .map(|entry| [element(entry, "cidr"), element(entry, "description")].join(" "))
            .collect();
        entries.sort();
        entries
    }
}

/// Sends a form, and answers the status and the XML.
pub(crate) async fn post(url: &str, form: Vec<u8>) -> (u16, String) {
    let request = reqwest::Client::new()
        .post(url)
        .header("authorization", AUTHORIZATION)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form);
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// The text of the first element of this name; empty where there is none.
fn element(xml: &str, name: &str) -> String {
    let inner = xml.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once("</"));
    inner.map(|(text, _)| text.to_owned()).unwrap_or_default()
}
