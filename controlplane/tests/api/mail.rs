//! Mail, handed to a real mail server.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command as Program, Stdio};
use std::time::Duration;

use postern_controlplane::domain::{Command, Email, Role, User};
use postern_controlplane::mail::{
    Addressee, Fate, Letter, MailConfig, MailTls, Outbox, Patience, Transport,
};
use postern_controlplane::people::mail_invitation;
use postern_controlplane::store::MemoryStore;
use postern_shared::ids::{Epoch, UserId};
use serde_json::Value;

use crate::browser::{Browser, Person, invite, join, next_step};
use crate::world::{BOUND, World, generous, within};

/// A mail server; ended when dropped.
pub(crate) struct Sink {
    program: Child,
    lines: tokio::sync::mpsc::UnboundedReceiver<Value>,
    port: u16,
}

impl Sink {
    /// Starts Debian's `aiosmtpd`; see `.ci/prerequisites`.
    pub(crate) async fn start() -> Sink {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/smtp_sink.py");
        let mut program = Program::new("/usr/bin/python3")
            .arg(script)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is there: run `make test`, which installs what is missing");
        let output = BufReader::new(program.stdout.take().unwrap());
        let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap();
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let first: Value = within(lines.recv()).await.expect("aiosmtpd is there: run `make test`");
        let port = u16::try_from(first["port"].as_u64().unwrap()).unwrap();
        Sink { program, lines, port }
    }

    pub(crate) fn transport(&self) -> Transport {
        let config = MailConfig {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            tls: MailTls::None,
            login: None,
            from: "Postern <postern@plane.example>".parse().unwrap(),
        };
        Transport::new(&config, "plane.example").unwrap()
    }

    /// The next mail.
    pub(crate) async fn mail(&mut self) -> Value {
        within(self.lines.recv()).await.unwrap()
    }

    fn is_quiet(&mut self) -> bool {
        self.lines.try_recv().is_err()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.program.kill());
        drop(self.program.wait());
    }
}

fn world(sink: &Sink) -> World {
    let store = Box::new(MemoryStore::new(Epoch::from_random([1; 16])));
    World::mailing(store, generous(), Some(sink.transport()))
}

/// The path of the link in a mail.
pub(crate) fn path(mail: &Value) -> String {
    let text = mail["text"].as_str().unwrap();
    let link = text.split_whitespace().find(|word| word.starts_with("https://")).unwrap();
    link.strip_prefix("https://plane.example").unwrap().to_owned()
}

#[tokio::test]
async fn a_reset_by_mail_sets_another_password_once() {
    let mut sink = Sink::start().await;
    let world = world(&sink);
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    let zoe = join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    let ask = async |email: &str| {
        let page = Browser::new(&world).fill_in("/reset", "/reset", &[("email", email)]).await;
        (page.status, page.text)
    };

    let known = ask("Zoe@Example.org").await;
    let mail = sink.mail().await;
    assert_eq!(ask("nobody@example.org").await, known, "who has an account is not told");
    assert_eq!(ask("zoe@example.org").await, known, "nor that a link was sent just now");
    assert_eq!(mail["to"], serde_json::json!(["zoe@example.org"]));
    assert_eq!(
        (mail["sender"].as_str(), mail["kind"].as_str()),
        (Some("postern@plane.example"), Some("text/plain"))
    );
    let path = path(&mail);
    let mut found = Browser::new(&world);
    next_step(&world);
    let shown = zoe.code(&world, 0);
    let new = "a horse of another colour";
    let set = async |browser: &mut Browser<'_>, code: &str| {
        let fields = [("password", new), ("again", new), ("code", code)];
        browser.post(&path, &fields).await.status
    };

    assert_eq!(found.get(&path).await.status, 200);
    assert_eq!(set(&mut found, "000000").await, 422, "the mail alone opens nothing");
    assert_eq!(set(&mut found, &shown).await, 303);
    assert!(found.is_signed_in().await && !browser.is_signed_in().await);
    assert_eq!(found.get(&path).await.status, 404);
    next_step(&world);
    assert_eq!(set(&mut Browser::new(&world), &zoe.code(&world, 0)).await, 404);
    assert_eq!(Browser::new(&world).sign_in(&zoe, &zoe.code(&world, 0)).await.status, 403);
    let zoe = Person { password: new.to_owned(), ..zoe };
    assert_eq!(Browser::new(&world).sign_in(&zoe, &zoe.code(&world, 0)).await.status, 303);
    assert!(sink.is_quiet(), "one mail in all");
}

#[tokio::test]
async fn a_reset_gets_past_the_wait_that_strangers_have_caused() {
    let mut sink = Sink::start().await;
    let world = world(&sink);
    let org = world.org("acme").await;
    let zoe = join(&mut Browser::new(&world), org, "zoe@example.org", Role::Admin).await;
    for _ in 0..9 {
        Browser::at(&world, "192.0.2.1").sign_in(&zoe, "000000").await;
    }
    let mut browser = Browser::new(&world);
    browser.fill_in("/reset", "/reset", &[("email", "zoe@example.org")]).await;
    let path = path(&sink.mail().await);
    let new = "a horse of another colour";
    let fields = [("password", new), ("again", new), ("code", &*zoe.recovery[3])];

    assert_eq!(browser.post(&path, &fields).await.status, 303);

    next_step(&world);
    let zoe = Person { password: new.to_owned(), ..zoe };
    assert_eq!(Browser::new(&world).sign_in(&zoe, &zoe.code(&world, 0)).await.status, 303);
}

#[tokio::test]
async fn invited_and_removed_users_get_no_reset() {
    let mut sink = Sink::start().await;
    let world = world(&sink);
    let org = world.org("acme").await;
    let zoe = join(&mut Browser::new(&world), org, "zoe@example.org", Role::Admin).await;
    let max = join(&mut Browser::new(&world), org, "max@example.org", Role::Member).await;
    world.order(Command::RemoveUser { org, user: max.id }).await;
    crate::browser::invite(&world, org, "new@example.org", Role::Member).await;

    for email in ["max@example.org", "new@example.org", &*zoe.email] {
        Browser::new(&world).fill_in("/reset", "/reset", &[("email", email)]).await;
    }

    assert_eq!(sink.mail().await["to"][0], *zoe.email);
    assert!(sink.is_quiet());
}

#[tokio::test]
async fn what_became_of_a_mail_is_told() {
    let mut sink = Sink::start().await;
    let engine = world(&sink).engine.clone();
    let patience = Patience { base: Duration::from_millis(1), cap: Duration::from_millis(1) };
    let chance = || std::sync::Arc::new(postern_controlplane::chance::SeededChance::new(1));
    let outbox = Outbox::start(sink.transport(), patience, engine.clone(), chance());
    let user = |n: u8| UserId::from_random([n; 16]);
    let send = |outbox: &Outbox, n: u8, to: &str| {
        let (to, link): (Email, _) = (to.parse().unwrap(), "https://plane.example/x".into());
        mail_invitation(outbox, user(n), &to, "Zoë’s\u{20}org", &link).unwrap();
    };

    send(&outbox, 1, "zoe@example.org");
    send(&outbox, 2, "gone@example.org");
    send(&outbox, 3, "later@example.org");
    send(&outbox, 4, "höhe@example.org");

    let mut mails = [sink.mail().await, sink.mail().await];
    mails.sort_by_key(|mail| mail["to"].to_string());
    assert_eq!(mails[1]["subject"], "You are invited to Zoë’s org");
    assert_eq!(
        (&mails[0]["to"][0], &mails[1]["to"][0]),
        (&"later@example.org".into(), &"zoe@example.org".into())
    );
    let settled = async |outbox: &Outbox, n: u8| {
        let done = async {
            loop {
                match outbox.fate(user(n)) {
                    Some(fate @ (Fate::Sent { .. } | Fate::Failed { .. })) => return fate,
                    Some(Fate::Waiting { .. } | Fate::Retried { .. }) | None => {
                        tokio::task::yield_now().await;
                    }
                }
            }
        };
        tokio::time::timeout(BOUND, done).await.unwrap()
    };
    assert!(matches!(settled(&outbox, 1).await, Fate::Sent { .. }));
    assert!(matches!(settled(&outbox, 3).await, Fate::Sent { .. }), "after two tries in vain");
    let Fate::Failed { why, .. } = settled(&outbox, 2).await else { panic!("it was refused") };
    assert!(why.contains("550") && why.contains("nobody of that name"), "{why}");
    let Fate::Failed { .. } = settled(&outbox, 4).await else { panic!("not understood there") };

    let transport = sink.transport();
    drop(sink);
    let outbox = Outbox::start(transport, patience, engine, chance());
    send(&outbox, 5, "zoe@example.org");
    let Fate::Failed { why, .. } = settled(&outbox, 5).await else { panic!("nobody listens") };
    assert!(why.contains("did not take it"), "{why}");
}

#[tokio::test]
async fn a_letter_that_waits_gives_way_to_a_newer_one() {
    let mut sink = Sink::start().await;
    let engine = world(&sink).engine.clone();
    let wait_max = Duration::from_millis(100);
    let patience = Patience { base: wait_max, cap: wait_max };
    let chance = std::sync::Arc::new(postern_controlplane::chance::SeededChance::new(1));
    let outbox = Outbox::start(sink.transport(), patience, engine, chance);
    let invite = |to: &str, link: &str| {
        let user = UserId::from_random([1; 16]);
        mail_invitation(&outbox, user, &to.parse().unwrap(), "acme", &link.into()).unwrap();
    };

    // What goes to this address is taken at the third try only.
    invite("later@example.org", "https://plane.example/old");
    invite("later@example.org", "https://plane.example/new");

    assert_eq!(path(&sink.mail().await), "/new");
    let another = tokio::time::timeout(3 * wait_max, sink.mail()).await;
    assert!(another.is_err(), "the old link never goes out: {another:?}");
}

#[tokio::test]
async fn a_letter_whose_link_has_ended_is_not_sent() {
    let mut sink = Sink::start().await;
    let world = world(&sink);
    let patience = Patience { base: Duration::from_millis(1), cap: Duration::from_millis(1) };
    let chance = std::sync::Arc::new(postern_controlplane::chance::SeededChance::new(1));
    let outbox = Outbox::start(sink.transport(), patience, world.engine.clone(), chance);
    let org = world.org("acme").await;
    let pair = world.pair(org, 3_600).await;
    let mut people = Vec::new();
    for name in ["max", "zoe"] {
        let email = format!("{name}@example.org");
        people.push(invite(&world, org, &email, Role::Member).await);
    }
    let [(max, of_max), (zoe, of_zoe)] = &people[..] else { panic!() };
    let mail = |user: &User, path: &str| {
        let link = format!("https://plane.example{path}").into();
        mail_invitation(&outbox, user.id, &user.email, "acme", &link).unwrap();
    };
    let mail_bookmark = || {
        outbox.send(Letter {
            addressee: Addressee::Pair(pair.id),
            to: "owner@example.org".parse().unwrap(),
            subject: "Your bookmark".to_owned(),
            body: "https://plane.example/b".into(),
            secret: Some(pair.bookmark.hash()),
        })
    };

    mail_bookmark().unwrap();
    assert_eq!(path(&sink.mail().await), "/b", "it is in force");
    world.order(Command::RemoveUser { org, user: max.id }).await;
    world.order(Command::DeletePair { org, pair: pair.id, expected: None }).await;
    mail(max, of_max);
    mail_bookmark().unwrap();
    mail(zoe, of_zoe);

    assert_eq!(path(&sink.mail().await), *of_zoe, "the first that is still good");
    for fate in [outbox.fate(max.id), outbox.fate_of_pair(pair.id)] {
        let Some(Fate::Failed { why, .. }) = fate else { panic!("{fate:?}") };
        assert_eq!(why, "its link ended before it could be sent");
    }
}

#[tokio::test]
async fn more_letters_than_can_wait_are_refused() {
    let sink = Sink::start().await;
    let world = world(&sink);
    let engine = world.engine.clone();
    let chance = std::sync::Arc::new(postern_controlplane::chance::SeededChance::new(1));
    let outbox = Outbox::start(sink.transport(), Patience::USUAL, engine, chance);
    let letter = || Letter {
        addressee: Addressee::User(UserId::from_random([1; 16])),
        to: "later@example.org".parse().unwrap(),
        subject: "Full".to_owned(),
        body: "x".into(),
        secret: None,
    };

    // The runtime of this test has one thread, so nobody takes any meanwhile.
    let sent = (0..300).take_while(|_| outbox.send(letter()).is_ok()).count();

    assert_eq!(sent, 256);
}
