use std::num::NonZeroU32;

use super::read::{CONTROL_SOCKET, DATA_DIR, SOCKET_PATH_BYTES_MAX};
use super::*;
use crate::http::limit::Budget;
use crate::mail::MailTls;
use crate::server::ForwardHeader;

const WHOLE: &str = "\
data_dir: state
public_url: https://plane.example.org:8443/
ipv4_url: https://IPv4.plane.example.org:443
ipv6_url: https://ipv6.plane.example.org:8443
listen:
  - address: '[::]:8443'
    tls:
      certificate: /etc/postern/cert.pem
      key: tls/key.pem
  - address: 127.0.0.1:8080
trusted_proxies:
  networks: [127.0.0.1, 10.0.0.0/8]
  header: X-Forwarded-For
metrics: 127.0.0.1:9464
control_socket: /run/postern-controlplane/control.sock
ttl: 12h
allow_private: false
cors_origins: ['https://Console.example.org:443/', 'https://a.example:8443']
limits:
  connections: 100
  connections_by_peer: 10
  reads_per_minute: 60
  moves_per_hour: 20
log:
  level: debug
  format: json
audit:
  keep: 400d
mail:
  from: Postern <postern@example.org>
  smtp:
    host: mail.example.org
    port: 465
    tls: required
    username: postern
    password_file: mail-password
";

fn parse(text: &str) -> Result<Config, Vec<Mistake>> {
    Config::parse(text, Path::new("/etc/postern"))
}

fn mistakes(text: &str) -> String {
    let mistakes = parse(text).expect_err("there are mistakes");
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_key_is_read() {
    let config = parse(WHOLE).unwrap();

    assert_eq!(config.data_dir, Path::new("/etc/postern/state"));
    assert_eq!(config.public_url.to_string(), "https://plane.example.org:8443");
    let other = |address: &str| config.family_urls.other_than(address.parse().unwrap());
    let origin = |address: &str| other(address).unwrap().origin().as_str().to_owned();
    assert_eq!(origin("2001:db8::7"), "https://ipv4.plane.example.org");
    assert_eq!(origin("192.0.2.7"), "https://ipv6.plane.example.org:8443");
    let tls = config.listen[0].tls.as_ref().unwrap();
    assert_eq!(tls.certificate, Path::new("/etc/postern/cert.pem"));
    assert_eq!(tls.key, Path::new("/etc/postern/tls/key.pem"));
    assert_eq!(config.listen[1], Listen { address: ([127, 0, 0, 1], 8080).into(), tls: None });
    assert_eq!(config.proxies.networks.len(), 2);
    assert_eq!(config.proxies.header, ForwardHeader::XForwardedFor);
    assert_eq!(config.metrics, Some(([127, 0, 0, 1], 9464).into()));
    assert_eq!(config.control_socket, Path::new("/run/postern-controlplane/control.sock"));
    assert_eq!((config.ttl.as_secs(), config.allow_private), (43_200, false));
    let origins: Vec<&str> = config.cors_origins.iter().map(WebOrigin::as_str).collect();
    assert_eq!(origins, ["https://console.example.org", "https://a.example:8443"]);
    assert_eq!((config.limits.connections, config.limits.connections_by_peer), (100, 10));
    assert_eq!(config.rates.reads, Budget::per_minute(NonZeroU32::new(60).unwrap()));
    assert_eq!(config.rates.writes, RateLimits::DEFAULT.writes);
    assert_eq!(config.rates.moves, Budget::per_hour(NonZeroU32::new(20).unwrap()));
    assert_eq!(config.log, Log { level: LogLevel::Debug, json: true });
    assert_eq!(config.audit_keep, Ttl::from_secs(400 * 86_400).ok());
    let mail = config.mail.unwrap();
    assert_eq!(
        (mail.host.as_str(), mail.port, mail.tls),
        ("mail.example.org", 465, MailTls::Required)
    );
    assert_eq!(mail.login.unwrap().password_file, Path::new("/etc/postern/mail-password"));
    assert_eq!(mail.from.to_string(), "Postern <postern@example.org>");
}

#[test]
fn little_has_to_be_said() {
    let config =
        parse("public_url: http://localhost:8080\nlisten: [{address: '127.0.0.1:8080'}]").unwrap();

    assert_eq!(config.data_dir, Path::new(DATA_DIR));
    assert_eq!(config.control_socket, Path::new(DATA_DIR).join(CONTROL_SOCKET));
    assert_eq!((config.limits, config.rates), (Limits::PUBLIC, RateLimits::DEFAULT));
    assert_eq!((config.ttl, config.allow_private), (Ttl::DEFAULT, true));
    assert_eq!(config.proxies, TrustedProxies::NONE);
    assert_eq!((config.metrics, config.mail), (None, None));
    assert_eq!(config.cors_origins, []);
    assert_eq!((config.public_url.host(), config.public_url.port()), ("localhost", 8080));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "\
public_url: plane.example.org
listen:
  - address: 0.0.0.0:80
  - address: localhost:80
  - address: 127.0.0.1:81
    tls: {certificate: a.pem}
  - address: 127.0.0.1:81
trusted_proxy: 10.0.0.1
metrics: 127.0.0.1:81
ttl: 1 day
allow_private: no
limits: {connections: 0}
log: {level: loud, format: xml}
";

    assert_eq!(
        mistakes(text),
        "\
1:13: public_url: is `plane.example.org`; write scheme, host and port, such as https://plane.example.org
3:5: listen[0].tls: can be reached from other machines; add `tls`, or name the proxies in front of it under `trusted_proxies`
4:14: listen[1].address: invalid socket address syntax
6:10: listen[2].tls.key: is missing
7:14: listen[3].address: is listened on already
8:1: trusted_proxy: is not known here; did you mean `trusted_proxies`?
9:10: metrics: needs an address of its own
10:6: ttl: is `1 day`; write a span of time such as 90s, 15m, 12h or 7d
11:16: allow_private: is `no`; write true or false
12:23: limits.connections: is 0; write a number from 1 to 1000000
13:14: log.level: is `loud`; write error, warn, info, debug, trace
13:28: log.format: is `xml`; write json or text"
    );
}

#[test]
fn nothing_listens_for_nobody_and_nobody_trusts_everybody() {
    let text = "\
public_url: https://plane.example.org
trusted_proxies:
  networks: [0.0.0.0/0, 10.0.0.1/8]
  header: x-client-ip
";

    assert_eq!(
        mistakes(text),
        "\
1:1: listen: names no address
3:14: trusted_proxies.networks[0]: trusts everybody; name the networks of your proxies
3:25: trusted_proxies.networks[1]: `10.0.0.1/8` has host bits set; the network is 10.0.0.0/8
4:11: trusted_proxies.header: is `x-client-ip`; write one of x-forwarded-for, forwarded, x-real-ip, cf-connecting-ip, true-client-ip"
    );
}

#[test]
fn mail_goes_out_in_the_clear_on_this_machine_only() {
    let with = |mail: &str| {
        let head = "public_url: http://[::1]\nlisten: [{address: '[::1]:80'}]\n";
        format!("{head}mail:\n  from: a@example.org\n  smtp: {{{mail}}}\n")
    };

    for good in [
        "host: mail.example.org",
        "host: mail.example.org, tls: opportunistic",
        "host: localhost, tls: none",
        "host: '127.0.0.1', port: 25, tls: none",
        "host: mail.example.org, username: a, password_file: b",
    ] {
        parse(&with(good)).expect(good);
    }
    for (bad, told) in [
        ("port: 25", "5:9: mail.smtp.host: is missing"),
        ("host: mail.example.org, tls: none", "mail.smtp.tls: is for this machine only"),
        ("host: localhost, tls: maybe", "mail.smtp.tls: is `maybe`; write required"),
        ("host: localhost, port: 0", "mail.smtp.port: is 0; write a number"),
        ("host: localhost, username: a", "mail.smtp.password_file: is missing"),
        ("host: localhost, password_file: a", "mail.smtp.username: is missing"),
        (
            "host: localhost, tls: opportunistic, username: a, password_file: b",
            "mail.smtp.tls: would send the password in the clear",
        ),
    ] {
        assert!(mistakes(&with(bad)).contains(told), "{bad}: {}", mistakes(&with(bad)));
    }
    let text = with("host: localhost").replace("a@example.org", "nobody");
    assert!(mistakes(&text).contains("mail.from: "), "{}", mistakes(&text));
}

#[test]
fn a_socket_path_has_to_fit() {
    let long = "s".repeat(SOCKET_PATH_BYTES_MAX);
    let text = format!(
        "public_url: http://[::1]\nlisten: [{{address: '[::1]:80'}}]\ncontrol_socket: /{long}\n"
    );

    assert!(mistakes(&text).starts_with("3:17: control_socket: /ss"), "{}", mistakes(&text));
    parse(&text.replace(&long, &long[1..])).unwrap();
}

#[test]
fn a_public_url_is_a_place_and_nothing_more() {
    for (text, host, port, shown) in [
        ("https://a.example.org", "a.example.org", 443, "https://a.example.org"),
        ("https://203.0.113.7:8443/", "203.0.113.7", 8443, "https://203.0.113.7:8443"),
        ("https://[2001:db8::1]", "2001:db8::1", 443, "https://[2001:db8::1]"),
        ("http://127.0.0.1:80", "127.0.0.1", 80, "http://127.0.0.1:80"),
    ] {
        let url: PublicUrl = text.parse().unwrap();
        assert_eq!((url.host(), url.port(), url.to_string().as_str()), (host, port, shown));
    }
    for text in [
        "",
        "/",
        "a.example.org",
        "ftp://a.example.org",
        "https://",
        "https://a.example.org/path",
        "https://a.example.org?q",
        "https://user@a.example.org",
        "http://a.example.org",
        "http://203.0.113.7",
    ] {
        text.parse::<PublicUrl>().expect_err(text);
    }
}

#[test]
fn a_file_is_named_in_what_is_told_about_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("controlplane.yaml");
    let load = || Config::load(&path).unwrap_err().to_string();

    assert_eq!(load(), format!("cannot read {}", path.display()));
    std::fs::write(&path, "public_url: [").unwrap();
    assert!(load().starts_with(&format!("{}:1:", path.display())), "{}", load());
    std::fs::write(&path, "#".repeat(DOCUMENT_BYTES_MAX + 1)).unwrap();
    assert!(load().contains("longer"), "{}", load());
    std::fs::write(&path, WHOLE).unwrap();
    assert_eq!(Config::load(&path).unwrap().data_dir, folder.path().join("state"));
}
