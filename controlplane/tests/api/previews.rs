//! What looks at links without anybody having asked: nothing of it opens anything (G7).

use axum::body::Body;
use axum::http::Request;
use postern_controlplane::domain::MemberKind;
use postern_controlplane::server::Peer;
use postern_shared::time::Expiry;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

use crate::world::{NewPair, OFFICE, World, generous};

const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                      Chrome/126.0.0.0 Safari/537.36";
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0";
const SAFARI: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like \
                      Gecko) Version/17.5 Safari/605.1.15";
const PAGE: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// A request that nobody has asked for: who sends it, and its header fields.
struct Shape {
    who: &'static str,
    fields: &'static [(&'static str, &'static str)],
}

/// As they call themselves. Versions vary, and nothing of ours looks at a robot's name: what they have in
/// common is that they look, and that some browsers say why.
const SHAPES: [Shape; 17] = [
    Shape {
        who: "Slack",
        fields: &[
            ("user-agent", "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"),
            ("accept", "*/*"),
            ("range", "bytes=0-32768"),
        ],
    },
    Shape { who: "Telegram", fields: &[("user-agent", "TelegramBot (like TwitterBot)")] },
    Shape {
        who: "WhatsApp",
        fields: &[("user-agent", "WhatsApp/2.24.10.85 A"), ("accept", "*/*")],
    },
    Shape {
        who: "Facebook",
        fields: &[
            (
                "user-agent",
                "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
            ),
            ("range", "bytes=0-524287"),
        ],
    },
    Shape {
        who: "Teams",
        fields: &[(
            "user-agent",
            "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5 \
             skype-url-preview@microsoft.com",
        )],
    },
    // A mail scanner that calls itself a browser.
    Shape {
        who: "SafeLinks",
        fields: &[("user-agent", CHROME), ("accept", PAGE), ("accept-language", "en-US")],
    },
    Shape {
        who: "Googlebot",
        fields: &[
            (
                "user-agent",
                "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            ),
            ("accept", PAGE),
            ("from", "googlebot(at)googlebot.com"),
        ],
    },
    Shape { who: "Twitter", fields: &[("user-agent", "Twitterbot/1.0"), ("accept", "*/*")] },
    Shape {
        who: "Discord",
        fields: &[(
            "user-agent",
            "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)",
        )],
    },
    // Fetch and Prerendering Revamped (WICG) have `Sec-Purpose`; `Purpose` is what came before it.
    Shape {
        who: "Chrome prerenders",
        fields: &[
            ("user-agent", CHROME),
            ("accept", PAGE),
            ("sec-purpose", "prefetch;prerender"),
            ("purpose", "prefetch"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-site", "none"),
        ],
    },
    Shape {
        who: "Chrome prefetches",
        fields: &[("user-agent", CHROME), ("accept", PAGE), ("sec-purpose", "prefetch")],
    },
    Shape {
        who: "Chrome prefetches by proxy",
        fields: &[
            ("user-agent", CHROME),
            ("accept", PAGE),
            ("sec-purpose", "prefetch;anonymous-client-ip"),
        ],
    },
    Shape {
        who: "Chrome previews a link",
        fields: &[
            ("user-agent", CHROME),
            ("accept", PAGE),
            ("sec-purpose", "prefetch;prerender;preview"),
        ],
    },
    Shape {
        who: "Safari previews",
        fields: &[("user-agent", SAFARI), ("accept", PAGE), ("x-purpose", "preview")],
    },
    Shape {
        who: "Safari preloads",
        fields: &[("user-agent", SAFARI), ("accept", PAGE), ("purpose", "prefetch")],
    },
    Shape {
        who: "Firefox prefetches",
        fields: &[("user-agent", FIREFOX), ("accept", PAGE), ("x-moz", "prefetch")],
    },
    Shape {
        who: "Firefox prefetches lately",
        fields: &[("user-agent", FIREFOX), ("accept", PAGE), ("sec-purpose", "prefetch")],
    },
];

const LOOKS: [&str; 3] = ["GET", "HEAD", "OPTIONS"];

/// Sends one look from [`OFFICE`].
async fn look(world: &World, method: &str, path: &str, shape: &Shape, key: Option<&str>) -> u16 {
    let peer = Peer::Tcp { address: "127.0.0.1:9".parse().unwrap(), is_tls: false };
    let mut request = Request::builder().method(method).uri(path).extension(peer);
    request = request.header("x-forwarded-for", OFFICE).header("host", "plane.example");
    for (name, value) in shape.fields {
        request = request.header(*name, *value);
    }
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let request = request.body(Body::empty()).unwrap();
    world.router.clone().oneshot(request).await.unwrap().status().as_u16()
}

/// Everything that the plane knows; nothing gets into the store that is not applied here as well.
fn all(world: &World) -> String {
    format!("{:?}", *world.engine.state())
}

async fn pair_in_group(world: &World) -> (NewPair, String, String) {
    let org = world.org("acme").await;
    let (group, pair) = (world.group(org).await, world.pair(org, 3_600).await);
    world.member(org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
    let key = world.key(org).await.expose().to_owned();
    (pair, group.to_string(), key)
}

#[tokio::test]
async fn no_preview_and_no_prefetch_opens_anything() {
    let world = World::with(generous());
    let (pair, ..) = pair_in_group(&world).await;
    let bookmark = pair.bookmark.expose();
    let before = all(&world);

    for shape in &SHAPES {
        for path in [format!("/b/{bookmark}"), format!("/whitelist/{bookmark}")] {
            for method in LOOKS {
                let status = look(&world, method, &path, shape, None).await;
                assert!(status < 500, "{} {method}: {status}", shape.who);
                assert!(all(&world) == before, "{} {method} {path} changed something", shape.who);
            }
        }
    }
    for shape in SHAPES.iter().filter(|shape| shape.fields.iter().any(is_ahead)) {
        let status = look(&world, "POST", &format!("/b/{bookmark}"), shape, None).await;
        assert_eq!(status, 204, "{}", shape.who);
        assert!(all(&world) == before, "{} by POST", shape.who);
    }
    world.report(&pair, OFFICE).await;
    assert!(all(&world) != before, "the witness can see a report");
}

/// Says whether a field tells that nobody has asked yet.
fn is_ahead((name, _): &(&str, &str)) -> bool {
    name.ends_with("purpose") || *name == "x-moz"
}

#[test]
fn no_sequence_of_looks_changes_anything() {
    let runtime = Runtime::new().unwrap();
    let (world, paths, key) = runtime.block_on(async {
        let world = World::with(generous());
        let (pair, group, key) = pair_in_group(&world).await;
        world.report(&pair, OFFICE).await;
        let mut paths: Vec<String> = Vec::new();
        for path in world.held.document().await["paths"].as_object().unwrap().keys() {
            let id = if path.contains("/groups/") { group.clone() } else { pair.id.to_string() };
            let named = path.split('/').map(|part| if part.starts_with('{') { &*id } else { part });
            paths.push(format!("/api/v1{}", named.collect::<Vec<_>>().join("/")));
        }
        assert!(15 < paths.len(), "{paths:?}");
        let (bookmark, server) = (pair.bookmark.expose(), pair.server_key.expose());
        paths.push(format!("/b/{bookmark}"));
        paths.push(format!("/b/{bookmark}/state"));
        paths.push(format!("/whitelist/{bookmark}"));
        paths.push(format!("/serverquery/{server}"));
        for page in ["sign-in", "sign-out", "reset", "reset/x", "welcome/x", "account", "livez"] {
            paths.push(format!("/{page}"));
        }
        (world, paths, key)
    });
    let before = all(&world);
    let looks = prop::collection::vec(
        (select(&LOOKS[..]), select(paths), 0..SHAPES.len(), any::<bool>()),
        1..24,
    );

    TestRunner::new(Config { cases: 64, ..Config::default() })
        .run(&looks, |looks| {
            for (method, path, shape, with_key) in looks {
                let key = with_key.then_some(&*key);
                let status = runtime.block_on(look(&world, method, &path, &SHAPES[shape], key));
                prop_assert!(status < 500, "{method} {path}: {status}");
                prop_assert!(all(&world) == before, "{method} {path}");
            }
            Ok(())
        })
        .unwrap();
    runtime.block_on(async { drop(world) });
}
