//! A browser without script: keeps cookies, follows nothing by itself, sends forms.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use postern_controlplane::domain::{Command, Purpose, Role, Ticket, User};
use postern_controlplane::people::link;
use postern_controlplane::server::Peer;
use postern_shared::ids::{OrgId, UserId};
use postern_shared::time::Timestamp;
use postern_shared::token::{Token, TokenKind};
use reqwest::{Method, RequestBuilder};

use crate::world::{OFFICE, World, within};

pub(crate) const PASSWORD: &str = "correct horse battery staple";
pub(crate) const LOGIN: &str = "__Host-postern";
pub(crate) const KNOWN: &str = "__Host-postern-known";
const FORM: &str = "application/x-www-form-urlencoded";

/// A browser at an address.
#[derive(Clone)]
pub(crate) struct Browser<'a> {
    world: &'a World,
    pub(crate) address: String,
    pub(crate) cookies: BTreeMap<String, String>,
}

/// What a browser was shown.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

/// Somebody who has accepted an invitation.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) id: UserId,
    pub(crate) org: OrgId,
    pub(crate) email: String,
    pub(crate) password: String,
    /// The authenticator's seed, as typed from the page.
    pub(crate) seed: Vec<u8>,
    pub(crate) typed_seed: String,
    pub(crate) recovery: Vec<String>,
}

impl<'a> Browser<'a> {
    pub(crate) fn new(world: &'a World) -> Browser<'a> {
        Browser { world, address: OFFICE.to_owned(), cookies: BTreeMap::new() }
    }

    pub(crate) fn at(world: &'a World, address: &str) -> Browser<'a> {
        Browser { address: address.to_owned(), ..Browser::new(world) }
    }

    /// A request with this browser's cookies and nothing else.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.world.at(&self.address).request(method, path).header("cookie", self.cookie())
    }

    fn cookie(&self) -> String {
        let pairs: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }

    /// Sends a request, and keeps the cookies of the answer.
    pub(crate) async fn send(&mut self, request: RequestBuilder) -> Page {
        let answer = within(request.header("user-agent", "Lynx <b>").send()).await.unwrap();
        for line in answer.headers().get_all("set-cookie") {
            let line = line.to_str().unwrap();
            for attribute in ["Path=/", "Secure", "HttpOnly", "SameSite="] {
                assert!(line.contains(attribute), "{line}");
            }
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            assert!(name.starts_with("__Host-"), "{line}");
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Page { status, headers, text: within(answer.text()).await.unwrap() }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Page {
        self.send(self.request(Method::GET, path)).await
    }

    /// Sends a form as a page of the plane would.
    pub(crate) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let request = self.request(Method::POST, path).header("sec-fetch-site", "same-origin");
        self.send(request.header("content-type", FORM).body(encoded(fields))).await
    }

    /// Opens a page, and sends its form with what it holds and what is filled in.
    pub(crate) async fn fill_in(
        &mut self,
        page: &str,
        action: &str,
        fields: &[(&str, &str)],
    ) -> Page {
        let form = self.get(page).await;
        assert_eq!(form.status, 200, "{}", form.text);
        let mut all: Vec<(&str, &str)> = fields.to_vec();
        for hidden in ["proof", "seed", "once", "version"] {
            all.extend(form.field(hidden).map(|value| (hidden, value)));
        }
        self.post(action, &all).await
    }

    /// Signs in as far as the plane lets it.
    pub(crate) async fn sign_in(&mut self, person: &Person, code: &str) -> Page {
        let fields = [("email", &*person.email), ("password", &*person.password), ("code", code)];
        self.fill_in("/sign-in", "/sign-in", &fields).await
    }

    pub(crate) async fn is_signed_in(&mut self) -> bool {
        self.get("/account").await.status == 200
    }

    /// The same form without a socket, to be sent by a crowd.
    pub(crate) fn unplugged(&self, path: &str, fields: &[(&str, &str)]) -> Request<Body> {
        let peer = Peer::Tcp { address: "127.0.0.1:9".parse().unwrap(), is_tls: false };
        Request::post(path)
            .header("x-forwarded-for", &self.address)
            .header("cookie", self.cookie())
            .header("content-type", FORM)
            .extension(peer)
            .body(Body::from(encoded(fields)))
            .unwrap()
    }
}

pub(crate) fn encoded(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

impl Page {
    /// The value of a hidden field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mark = format!("name=\"{name}\" value=\"");
        self.text.split_once(&mark)?.1.split('"').next()
    }

    /// The key that is to be typed into an authenticator.
    pub(crate) fn typed_seed(&self) -> String {
        let key = self.text.split_once("class=\"key\">").unwrap().1.split('<').next().unwrap();
        key.replace(' ', "")
    }

    /// The same in bytes.
    pub(crate) fn seed(&self) -> Vec<u8> {
        base32(&self.typed_seed())
    }

    pub(crate) fn recovery_codes(&self) -> Vec<String> {
        let codes = self.text.split("<code>").skip(1);
        codes.map(|rest| rest.split('<').next().unwrap().to_owned()).collect()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Person {
    /// The code that the authenticator shows, so many steps from now.
    pub(crate) fn code(&self, world: &World, steps: i64) -> String {
        code(&self.seed, world.engine.now(), steps)
    }
}

/// RFC 6238 by the letter, sharing no code with the plane: HMAC-SHA-1, cut down to six digits.
pub(crate) fn code(seed: &[u8], now: Timestamp, steps: i64) -> String {
    let step = (now.unix_ms() / 30_000).checked_add_signed(steps).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, seed);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let offset = usize::from(tag[19] & 0xf);
    let number = u32::from_be_bytes(tag[offset..offset + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

fn base32(text: &str) -> Vec<u8> {
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for c in text.bytes() {
        let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|known| *known == c);
        bits = (bits << 5 | u32::try_from(value.unwrap()).unwrap()) & 0xfff;
        count += 5;
        if 8 <= count {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

/// Makes a ticket and hands out the path of its link.
pub(crate) fn ticket(world: &World, user: &User, purpose: Purpose) -> (Ticket, String, Token) {
    let token = world.engine.chance().token(TokenKind::Ticket);
    let ticket = Ticket {
        hash: token.hash(),
        user: user.id,
        org: user.org,
        purpose,
        created_at: world.engine.now(),
    };
    let path = link("", purpose, &token);
    (ticket, path, token)
}

/// Invites somebody, and answers the path of the link.
pub(crate) async fn invite(world: &World, org: OrgId, email: &str, role: Role) -> (User, String) {
    let id = UserId::from_random(world.engine.chance().id());
    let created_at = world.engine.now();
    let user = User { id, org, email: email.parse().unwrap(), role, created_at };
    let (ticket, path, _) = ticket(world, &user, Purpose::Invitation);
    world.order(Command::InviteUser { user: user.clone(), ticket }).await;
    (user, path)
}

/// Invites somebody who accepts in `browser`, and so is signed in there.
pub(crate) async fn join(browser: &mut Browser<'_>, org: OrgId, email: &str, role: Role) -> Person {
    let world = browser.world;
    let (user, path) = invite(world, org, email, role).await;
    let page = browser.get(&path).await;
    let seed = page.seed();
    let code = code(&seed, world.engine.now(), 0);
    let fields = [
        ("seed", page.field("seed").unwrap()),
        ("password", PASSWORD),
        ("again", PASSWORD),
        ("code", &code),
    ];
    let done = browser.post(&path, &fields).await;
    assert_eq!(done.status, 200, "{}", done.text);
    Person {
        id: user.id,
        org,
        email: email.to_owned(),
        password: PASSWORD.to_owned(),
        seed,
        typed_seed: page.typed_seed(),
        recovery: done.recovery_codes(),
    }
}

/// Lets time pass until the authenticator shows a code that was not used.
pub(crate) fn next_step(world: &World) {
    world.clock.advance(std::time::Duration::from_secs(30));
}
