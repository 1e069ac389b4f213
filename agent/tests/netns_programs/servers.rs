//! nginx and HAProxy, which read files of ours: requests are the witness.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use postern_agent::commands::{Commands, Program};
use postern_agent::target::file::{File, FileConfig, Form, Line, Template};
use postern_agent::target::marked::Marked;
use postern_shared::format::{Format, Rendering};
use tempfile::TempDir;

use crate::netns::{Lab, PATIENCE, eventually, group};
use crate::{HOUR, pass};

/// Long enough for a reload on a busy machine, and less than anybody waits here.
const SOON: Duration = Duration::from_secs(7);

/// A server with a list of ours; killed when dropped.
struct Server {
    folder: TempDir,
    child: Option<Child>,
    form: Form,
    reload: Vec<String>,
}

/// A form of the feed.
fn feed(format: Format) -> Form {
    let (name, table) = ("office".parse().unwrap(), "filter".parse().unwrap());
    Form::Feed(Rendering { format, name, table, family: None })
}

impl Server {
    /// Writes the configuration, with `DIR` for the folder; nothing runs yet.
    fn new(form: Form, config: &str, reload: &[&str]) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().to_str().unwrap();
        fs::write(folder.path().join("conf"), config.replace("DIR", dir)).unwrap();
        let reload = reload.iter().map(|word| word.replace("DIR", dir)).collect();
        Server { folder, child: None, form, reload }
    }

    fn list(&self) -> PathBuf {
        self.folder.path().join("list")
    }

    fn target(&self) -> Marked<File> {
        let program = Program { argv: self.reload.clone(), limit: Program::LIMIT };
        let config = FileConfig {
            path: self.list(),
            form: self.form.clone(),
            mode: 0o640,
            user: None,
            group: None,
            reload: Some(program),
        };
        let file = File::new(config, "web", Commands::Here);
        Marked::new("web", "web", [group(1)].into(), file)
    }

    /// Starts the program and waits until it answers.
    fn run(&mut self, program: &str, arguments: &[&str]) {
        let dir = self.folder.path().to_str().unwrap();
        let arguments = arguments.iter().map(|word| word.replace("DIR", dir));
        let child = Command::new(program).args(arguments).stdin(Stdio::null()).spawn().unwrap();
        self.child = Some(child);
        eventually("it listens", || TcpStream::connect(("192.0.2.1", 8080)).is_ok());
    }

    /// Waits until the program is done with the last order: one worker is left, and the next order
    /// is heard. HAProxy's master begins anew with each, and one in between is lost.
    fn rests(&self) {
        let pid = self.child.as_ref().unwrap().id();
        let workers = || {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
            children.split_whitespace().count()
        };
        eventually("one worker is left", || workers() == 1 && self.takes_orders());
    }

    fn takes_orders(&self) -> bool {
        const USR2: u64 = 1 << 11;
        let pid = self.child.as_ref().unwrap().id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mask = |name: &str| {
            let mask = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(mask.trim(), 16).unwrap()
        };
        mask("SigBlk:") & USR2 == 0 && mask("SigCgt:") & USR2 != 0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = rustix::process::Pid::from_child(&child);
            let _: Result<_, _> = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            drop(child.wait());
        }
    }
}

/// The status of a request from one of the addresses of the other host.
fn status(lab: &Lab, source: &str) -> u16 {
    let source: std::net::IpAddr = source.parse().unwrap();
    lab.in_peer(move || {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &std::net::SocketAddr::new(source, 0)).unwrap();
        connect(&socket, &std::net::SocketAddr::from(([192, 0, 2, 1], 8080))).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    })
}

const NGINX: &str = "
error_log stderr warn; pid DIR/pid; daemon off; worker_processes 1;
events {}
http {
    access_log off;
    client_body_temp_path DIR/t1; proxy_temp_path DIR/t2; fastcgi_temp_path DIR/t3;
    uwsgi_temp_path DIR/t4; scgi_temp_path DIR/t5;
    include DIR/list;
    include DIR/more*;
    server {
        listen 8080;
        if ($office = 0) { return 403; }
        return 200;
    }
}
";

#[tokio::test]
async fn nginx_answers_by_the_list_and_goes_on_with_the_old_one_when_it_refuses() {
    let lab = Lab::new();
    let reload = ["/usr/sbin/nginx", "-c", "DIR/conf", "-s", "reload"];
    let mut nginx = Server::new(feed(Format::Nginx), NGINX, &reload);
    let mut target = nginx.target();
    // nginx does not start without the file, nor can it be told to read it before it runs.
    pass(&mut target, &[("10.0.0.1", HOUR)], &[]).await.unwrap_err();
    pass(&mut target, &[], &[]).await.unwrap_err();
    nginx.run("nginx", &["-c", "DIR/conf"]);
    assert_eq!(status(&lab, "10.0.0.1"), 403, "what was rolled back is not in the file");

    pass(&mut target, &[("10.0.0.1", HOUR)], &[]).await.unwrap();
    eventually("the reload is through", || status(&lab, "10.0.0.1") == 200);
    nginx.rests();
    assert_eq!(status(&lab, "10.0.0.2"), 403);

    // Somebody breaks the rest of the configuration: what we would add is not left in the file.
    fs::write(nginx.folder.path().join("more"), "no such directive;").unwrap();
    let error = pass(&mut target, &[("10.0.0.2", HOUR)], &[]).await.unwrap_err().to_string();
    assert!(error.contains("unknown directive"), "{error}");
    let text = fs::read_to_string(nginx.list()).unwrap();
    assert!(text.contains("10.0.0.1 1;") && !text.contains("10.0.0.2"), "{text}");
    assert_eq!(status(&lab, "10.0.0.1"), 200);

    fs::remove_file(nginx.folder.path().join("more")).unwrap();
    pass(&mut target, &[("10.0.0.2", HOUR)], &["10.0.0.1"]).await.unwrap();
    eventually("the new list counts", || status(&lab, "10.0.0.2") == 200);
    eventually("and the old one no more", || status(&lab, "10.0.0.1") == 403);
}

const HAPROXY: &str = "
global
    stats socket DIR/admin mode 600 level admin
defaults
    mode http
    timeout client 30s
    timeout server 30s
    timeout connect 30s
frontend web
    bind :8080
    http-request deny unless { src -f DIR/list }
    http-request return status 200
";

/// HAProxy with an empty list, and the target that writes it.
async fn closed_haproxy(lab: &Lab, form: Form, config: &str) -> (Server, Marked<File>) {
    // The master process takes USR2 as the order to read everything again.
    let reload = ["/bin/sh", "-c", "kill -USR2 $(cat DIR/pid)"];
    let mut haproxy = Server::new(form, config, &reload);
    let mut target = haproxy.target();
    pass(&mut target, &[], &[]).await.unwrap_err();
    haproxy.run("haproxy", &["-W", "-f", "DIR/conf", "-p", "DIR/pid"]);
    haproxy.rests();
    assert_eq!(status(lab, "10.0.0.1"), 403);
    (haproxy, target)
}

#[tokio::test]
async fn haproxy_answers_by_the_list_that_it_was_told_to_read() {
    let lab = Lab::new();
    let (haproxy, mut target) = closed_haproxy(&lab, feed(Format::Haproxy), HAPROXY).await;

    pass(&mut target, &[("10.0.0.1", HOUR), ("10.1.0.0/16", HOUR)], &[]).await.unwrap();
    eventually("the list counts", || status(&lab, "10.0.0.1") == 200);
    haproxy.rests();
    assert_eq!(status(&lab, "10.1.2.3"), 200);
    assert_eq!(status(&lab, "10.0.0.2"), 403);

    pass(&mut target, &[], &["10.0.0.1"]).await.unwrap();
    eventually("and what was withdrawn no more", || status(&lab, "10.0.0.1") == 403);
    assert_eq!(status(&lab, "10.1.2.3"), 200);
}

/// The form of a map, and the rules that ask it, as `examples/agent-file.yaml` has them.
fn map_of_the_example() -> (Form, String) {
    const PATH: &str = "/etc/haproxy/postern/office.map";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/agent-file.yaml");
    let text = fs::read_to_string(path).unwrap();
    let rules = text.lines().filter_map(|line| line.strip_prefix("  #     http-request "));
    let rules: String = rules.map(|rule| format!("    http-request {rule}\n")).collect();
    let example: serde_json::Value = serde_yaml::from_str(&text).unwrap();
    let mut targets = example["targets"].as_array().unwrap().iter();
    let template = &targets.find(|target| target["path"] == PATH).unwrap()["template"];
    let form = Form::Template(Template {
        header: String::new(),
        line: Line::read(template["line"].as_str().unwrap()).unwrap(),
        footer: String::new(),
        comment: template["comment"].as_str().map(str::to_owned),
    });
    (form, rules.replace(PATH, "DIR/list"))
}

#[tokio::test]
async fn haproxy_closes_at_the_deadline_in_its_map_though_no_agent_is_left() {
    let lab = Lab::new();
    let (form, rules) = map_of_the_example();
    let config = HAPROXY.replace("    http-request deny unless { src -f DIR/list }\n", &rules);
    let (haproxy, mut target) = closed_haproxy(&lab, form, &config).await;

    pass(&mut target, &[("10.0.0.1", SOON), ("10.1.0.0/16", HOUR)], &[]).await.unwrap();
    drop(target);
    eventually("the map counts", || status(&lab, "10.0.0.1") == 200);

    eventually("it closes by itself", || status(&lab, "10.0.0.1") == 403);
    let text = fs::read_to_string(haproxy.list()).unwrap();
    assert!(text.contains("\n10.0.0.1 "), "nobody has taken it away: {text}");
    assert_eq!(status(&lab, "10.1.2.3"), 200);
    assert_eq!(status(&lab, "10.0.0.2"), 403);
}
