//! A window of Chromium, driven through chromedriver; `.ci/prerequisites test` installs both.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

/// Longest wait for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A window of Chromium. Both programs end with it.
pub(crate) struct Window {
    driver: Child,
    session: String,
    http: reqwest::Client,
}

impl Window {
    /// Opens a window whose requests come from `address`, as the trusted proxy tells it.
    pub(crate) async fn open_at(address: &str) -> Window {
        let window = Window::open(&[]).await;
        window.devtools("Network.enable", json!({})).await;
        window.come_from(address).await;
        window
    }

    /// Lets requests come from `address` from now on, as the trusted proxy tells it.
    pub(crate) async fn come_from(&self, address: &str) {
        let headers = json!({ "headers": { "x-forwarded-for": address } });
        self.devtools("Network.setExtraHTTPHeaders", headers).await;
    }

    /// Opens a window of a Chromium with these arguments more.
    pub(crate) async fn open(more: &[&str]) -> Window {
        let (driver, port) = start_driver();
        let server = format!("http://127.0.0.1:{port}");
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        // Chromium's own sandbox does not start for root; all that it opens here is ours.
        let usual = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
        ];
        let arguments = [&usual[..], more].concat();
        let options = json!({ "args": arguments });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" } } } });
        let answer = within(http.post(format!("{server}/session")).json(&wanted).send()).await;
        let answer: Value = within(answer.unwrap().json()).await.unwrap();
        let id = answer["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("{answer}"));
        Window { driver, session: format!("{server}/session/{id}"), http }
    }

    pub(crate) async fn ask(&self, path: &str, body: Value) -> Value {
        let request = self.http.post(format!("{}/{path}", self.session)).json(&body);
        let mut answer: Value = within(within(request.send()).await.unwrap().json()).await.unwrap();
        assert_eq!(answer["value"]["error"], Value::Null, "{answer}");
        answer["value"].take()
    }

    pub(crate) async fn devtools(&self, command: &str, params: Value) -> Value {
        self.ask("goog/cdp/execute", json!({ "cmd": command, "params": params })).await
    }

    pub(crate) async fn go(&self, url: &str) {
        self.ask("url", json!({ "url": url })).await;
    }

    /// The value of an expression in the page.
    pub(crate) async fn value(&self, expression: &str) -> Value {
        let script = format!("return ({expression})");
        self.ask("execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// The driver's name for the first element that a selector finds.
    pub(crate) async fn element(&self, selector: &str) -> String {
        let element = json!({ "using": "css selector", "value": selector });
        let found = self.ask("element", element).await;
        found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned()
    }

    pub(crate) async fn click(&self, selector: &str) {
        let id = self.element(selector).await;
        self.ask(&format!("element/{id}/click"), json!({})).await;
    }

    pub(crate) async fn text(&self) -> String {
        self.value("document.body.innerText").await.as_str().unwrap().to_owned()
    }

    /// Waits until the page says `part`.
    pub(crate) async fn says(&self, part: &str) -> String {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let text = self.text().await;
            if text.contains(part) {
                return text;
            }
            assert!(tokio::time::Instant::now() < until, "{part} is not in: {text}");
        }
    }

    /// What went wrong in the page, as its console tells it.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let told = self.ask("se/log", json!({ "type": "browser" })).await;
        let severe = told.as_array().unwrap().iter().filter(|line| line["level"] == "SEVERE");
        severe.map(ToString::to_string).filter(|line| !line.contains("favicon.ico")).collect()
    }

    /// All addresses that were asked for since the last call, with the referrer that was sent.
    pub(crate) async fn requests(&self) -> Vec<(String, Option<String>)> {
        let told = self.ask("se/log", json!({ "type": "performance" })).await;
        let lines = told.as_array().unwrap().iter();
        let events = lines.map(|line| {
            let event: Value = serde_json::from_str(line["message"].as_str().unwrap()).unwrap();
            event["message"].clone()
        });
        let sent = events.filter(|event| event["method"] == "Network.requestWillBeSent");
        let shown = sent.map(|event| {
            let request = &event["params"]["request"];
            let referrer = request["headers"]["Referer"].as_str();
            let referrer = referrer.filter(|told| !told.is_empty()).map(ToOwned::to_owned);
            (request["url"].as_str().unwrap().to_owned(), referrer)
        });
        shown.collect()
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // Told to end, chromedriver ends its Chromium first.
        let server = self.session.split("/session").next().unwrap_or_default();
        let address = server.trim_start_matches("http://");
        if let Ok(mut socket) = std::net::TcpStream::connect(address) {
            use std::io::{Read as _, Write as _};
            let path = self.session.trim_start_matches(server);
            let request =
                format!("DELETE {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
            let _ = socket.write_all(request.as_bytes());
            let _ = socket.set_read_timeout(Some(PATIENCE));
            let _ = socket.read(&mut [0; 1_024]);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Starts chromedriver and finds out the port it listens on.
fn start_driver() -> (Child, u16) {
    let mut last_words = Vec::new();
    // It wants one port in both families and ends where somebody has the one it chose.
    for _ in 0..5 {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is to be installed (`.ci/prerequisites test`)");
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        for line in lines.map(Result::unwrap) {
            if let Some((_, port)) = line.split_once("successfully on port ") {
                return (driver, port.trim_end_matches('.').parse().unwrap());
            }
            last_words.push(line);
        }
        driver.wait().unwrap();
    }
    panic!("chromedriver does not stay: {last_words:#?}");
}

async fn within<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("chromedriver answers")
}
