//! What a page is to people: its size and colours, axe-core's word on it, the keyboard, a picture.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::window::{PATIENCE, Window};

/// The folder into which pictures of the pages are put, where it is set.
const PICTURES: &str = "POSTERN_PICTURES";

/// A screen that pages are looked at on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    pub(crate) name: &'static str,
    width: u32,
    height: u32,
    is_phone: bool,
}

pub(crate) const PHONE: Screen = Screen { name: "phone", width: 375, height: 812, is_phone: true };
pub(crate) const DESKTOP: Screen =
    Screen { name: "desktop", width: 1_280, height: 900, is_phone: false };

impl Window {
    /// Opens a window that takes a certificate of ours, and comes from `address`.
    pub(crate) async fn open_secured_at(address: &str) -> Window {
        let window = Window::open(&["--ignore-certificate-errors"]).await;
        window.devtools("Network.enable", json!({})).await;
        window.come_from(address).await;
        window
    }

    /// Shows the page on another screen, in the colours `light` or `dark`.
    pub(crate) async fn show_on(&self, screen: Screen, colours: &str) {
        let Screen { width, height, is_phone, .. } = screen;
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1,
            "mobile": is_phone });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
        let features = json!([{ "name": "prefers-color-scheme", "value": colours },
            { "name": "prefers-reduced-motion", "value": "reduce" }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// Types into a field, in the place of what stands there.
    pub(crate) async fn fill(&self, selector: &str, text: &str) {
        let id = self.element(selector).await;
        self.ask(&format!("element/{id}/clear"), json!({})).await;
        self.ask(&format!("element/{id}/value"), json!({ "text": text })).await;
    }

    /// Presses the key that leads to the next control.
    pub(crate) async fn press_tab(&self) {
        for kind in ["rawKeyDown", "keyUp"] {
            let key = json!({ "type": kind, "key": "Tab", "code": "Tab",
                "windowsVirtualKeyCode": 9 });
            self.devtools("Input.dispatchKeyEvent", key).await;
        }
    }

    /// What axe-core finds to be wrong with the page, all its rules asked.
    pub(crate) async fn violations(&self) -> Vec<String> {
        if self.value("typeof axe").await == "undefined" {
            let script = fs::read_to_string(axe()).unwrap();
            self.ask("execute/sync", json!({ "script": script, "args": [] })).await;
        }
        let run = "const done = arguments[0]; axe.run().then((found) => done(found.violations), \
                   (error) => done([{ id: String(error), nodes: [] }]));";
        let found = self.ask("execute/async", json!({ "script": run, "args": [] })).await;
        let line = |it: &Value| {
            let nodes = it["nodes"].as_array().unwrap().iter();
            let nodes: Vec<String> =
                nodes.map(|node| format!("{} {}", node["html"], node["failureSummary"])).collect();
            format!("{}: {} {}", it["id"], it["help"], nodes.join("; "))
        };
        found.as_array().unwrap().iter().map(line).collect()
    }

    /// Waits until an expression is true in the page.
    pub(crate) async fn holds(&self, expression: &str) {
        let until = tokio::time::Instant::now() + PATIENCE;
        while self.value(expression).await != true {
            assert!(tokio::time::Instant::now() < until, "{expression}: {}", self.text().await);
        }
    }

    /// Whether the page is wider than the screen.
    pub(crate) async fn is_too_wide(&self) -> bool {
        let width = "document.documentElement.scrollWidth > document.documentElement.clientWidth";
        self.value(width).await == true
    }

    /// Keeps a picture of the whole page, for people who want to look at it.
    pub(crate) async fn keep_picture(&self, name: &str) {
        let Some(folder) = std::env::var_os(PICTURES).map(PathBuf::from) else { return };
        let how = json!({ "captureBeyondViewport": true });
        let picture = self.devtools("Page.captureScreenshot", how).await;
        let bytes = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{name}.png")), bytes).unwrap();
    }
}

/// Where axe-core is; `.ci/prerequisites test` puts it there.
fn axe() -> PathBuf {
    let lib = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python/lib"));
    let versions =
        fs::read_dir(lib).expect("axe-core is to be installed (`.ci/prerequisites test`)");
    let packages = versions.map(|entry| entry.unwrap().path().join("site-packages"));
    let mut files = packages.map(|folder| folder.join("axe_playwright_python/axe.min.js"));
    files.find(|file| file.exists()).expect("axe-core is installed (`.ci/prerequisites test`)")
}
