//! The console's pages of people. The witnesses are who can sign in afterwards, and the audit.

use postern_controlplane::domain::{Account, Role};
use postern_controlplane::store::MemoryStore;
use postern_shared::ids::{Epoch, OrgId};
use serde_json::Value;

use crate::browser::{Browser, PASSWORD, Page, Person, code, join, next_step};
use crate::mail::{self, Sink};
use crate::world::{OFFICE, World, generous};

const PEOPLE: &str = "/console/people";

fn link(page: &Page) -> String {
    assert_eq!(page.status, 200, "{}", page.text);
    let shown = page.text.split_once("id=\"link\">").unwrap().1.split('<').next().unwrap();
    shown.strip_prefix("https://plane.example").unwrap().to_owned()
}

/// Follows the link of an invitation, as its holder would.
async fn accept(world: &World, path: &str) -> u16 {
    let mut browser = Browser::new(world);
    let page = browser.get(path).await;
    if page.status != 200 {
        return page.status;
    }
    let code = code(&page.seed(), world.engine.now(), 0);
    let seed = page.field("seed").unwrap().to_owned();
    let fields = [("seed", &*seed), ("password", PASSWORD), ("again", PASSWORD), ("code", &*code)];
    let done = browser.post(path, &fields).await;
    assert_eq!(done.status, 200, "{}", done.text);
    assert!(browser.is_signed_in().await);
    done.status
}

fn page_of(person: &Person) -> String {
    format!("{PEOPLE}/{}", person.id)
}

fn role(world: &World, org: OrgId, email: &str) -> Option<Role> {
    let state = world.engine.state();
    state.user_by_email(org, &email.parse().unwrap()).map(|user| user.role)
}

/// The kinds of the newest records that are no tries and no sign-ins, with who did it.
async fn newest(world: &World, org: OrgId, count: usize) -> Vec<(String, String)> {
    let key = world.key(org).await;
    let records = world.holder(&key, OFFICE).data("/api/v1/account/audit").await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let records = records.as_array().unwrap().iter().skip(1);
    let told = records.map(|one| (text(&one["kind"]), text(&one["actor"]["name"])));
    told.filter(|(kind, _)| kind.starts_with("user_")).take(count).collect()
}

#[tokio::test]
async fn who_is_invited_gets_in_by_the_link_that_is_shown_once() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    join(&mut browser, org, "zoe@example.org", Role::Admin).await;

    let fields = [("email", "max+<b>@example.org"), ("role", "admin")];
    let wrong = browser.fill_in(PEOPLE, PEOPLE, &fields).await;
    assert_eq!(wrong.status, 422, "{}", wrong.text);
    assert!(wrong.text.contains("write name@example.org"), "{}", wrong.text);
    let fields = [("email", "max&co@example.org"), ("role", "member")];
    let page = browser.fill_in(PEOPLE, PEOPLE, &fields).await;

    let path = link(&page);
    assert_eq!(page.header("cache-control"), "no-store");
    assert!(page.text.contains("max&#38;co@example.org"), "{}", page.text);
    let list = browser.get(PEOPLE).await.text;
    assert!(list.contains(">invited<") && !list.contains("/welcome/"), "{list}");
    let again = browser.fill_in(PEOPLE, PEOPLE, &fields).await;
    let newer = link(&again);
    assert_eq!(accept(&world, &path).await, 404, "the newer link replaced it");
    assert_eq!(accept(&world, &newer).await, 200);
    assert_eq!(accept(&world, &newer).await, 404, "once");
    assert_eq!(role(&world, org, "max&co@example.org"), Some(Role::Member));
    let known = browser.fill_in(PEOPLE, PEOPLE, &fields).await;
    assert_eq!(known.status, 422);
    assert!(known.text.contains("is in the org already"), "{}", known.text);
    let none = browser.fill_in(PEOPLE, PEOPLE, &[("email", "x@example.org"), ("role", "root")]);
    assert!(none.await.text.contains("choose what the person may do"));
    assert_eq!(
        newest(&world, org, 3).await,
        [
            ("user_accepted".to_owned(), "max&co@example.org".to_owned()),
            ("user_invited".to_owned(), "zoe@example.org".to_owned()),
            ("user_invited".to_owned(), "zoe@example.org".to_owned()),
        ]
    );
}

#[tokio::test]
async fn a_plane_that_mails_shows_no_link() {
    let mut sink = Sink::start().await;
    let store = Box::new(MemoryStore::new(Epoch::from_random([1; 16])));
    let world = World::mailing(store, generous(), Some(sink.transport()));
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    let zoe = join(&mut browser, org, "zoe@example.org", Role::Admin).await;

    next_step(&world);
    let code = zoe.code(&world, 0);
    let fields = [("email", "max@example.org"), ("role", "admin"), ("code", &*code)];
    let page = browser.fill_in(PEOPLE, PEOPLE, &fields).await;

    assert_eq!(page.status, 200, "{}", page.text);
    assert!(page.text.contains("on its way to") && !page.text.contains("/welcome/"));
    let mail = sink.mail().await;
    assert_eq!(mail["to"][0], "max@example.org");
    assert_eq!(accept(&world, &mail::path(&mail)).await, 200);
    assert_eq!(role(&world, org, "max@example.org"), Some(Role::Admin));
}

#[tokio::test]
async fn another_role_counts_at_once() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    let zoe = join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    let mut other = Browser::new(&world);
    let max = join(&mut other, org, "max@example.org", Role::Member).await;
    let (page, action) = (page_of(&max), format!("{}/role", page_of(&max)));

    next_step(&world);
    let code = zoe.code(&world, 0);
    let fields = [("role", "admin"), ("code", &*code)];
    let made = browser.fill_in(&page, &action, &fields).await;
    assert_eq!((made.status, made.header("location")), (303, &*page));
    let group = other.fill_in("/console/groups", "/console/groups", &[("name", "web")]).await;
    assert_eq!(group.status, 303, "an admin may");
    let made = browser.fill_in(&page, &action, &[("role", "member")]).await;
    assert_eq!(made.status, 303);
    assert!(!other.is_signed_in().await, "what is open was opened by an admin");
    next_step(&world);
    assert_eq!(other.sign_in(&max, &max.code(&world, 0)).await.status, 303);
    let group = other.fill_in("/console", "/console/groups", &[("name", "db")]).await;
    assert_eq!(group.status, 403);
    assert_eq!(
        newest(&world, org, 2).await,
        vec![("user_role_set".to_owned(), "zoe@example.org".to_owned()); 2]
    );
}

#[tokio::test]
async fn nobody_is_made_an_admin_without_a_fresh_code() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    let zoe = join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    let max = join(&mut Browser::new(&world), org, "max@example.org", Role::Member).await;
    let (page, action) = (page_of(&max), format!("{}/role", page_of(&max)));
    let used = zoe.code(&world, 0);

    for code in ["", "000000", &*used] {
        let invited = [("email", "eve@example.org"), ("role", "admin"), ("code", code)];
        let refused = browser.fill_in(PEOPLE, PEOPLE, &invited).await;
        assert_eq!(refused.status, 422, "{code}: {}", refused.text);
        let fields = [("role", "admin"), ("code", code)];
        assert_eq!(browser.fill_in(&page, &action, &fields).await.status, 422, "{code}");
    }
    assert_eq!(role(&world, org, "eve@example.org"), None);
    assert_eq!(role(&world, org, "max@example.org"), Some(Role::Member));
    next_step(&world);
    let code = zoe.code(&world, 0);
    let invited = [("email", "eve@example.org"), ("role", "admin"), ("code", &*code)];
    link(&browser.fill_in(PEOPLE, PEOPLE, &invited).await);
    let fields = [("role", "admin"), ("code", &*code)];
    assert_eq!(browser.fill_in(&page, &action, &fields).await.status, 422, "it was used");
    // Inviting anew the one who is to be an admin makes one as well.
    let eve =
        world.engine.state().user_by_email(org, &"eve@example.org".parse().unwrap()).unwrap().id;
    let path = format!("{PEOPLE}/{eve}");
    let again = browser.fill_in(&path, &format!("{path}/invite"), &[]).await;
    assert_eq!(again.status, 422);
    assert!(again.text.contains("write the newest code"), "{}", again.text);
    assert_eq!(role(&world, org, "max@example.org"), Some(Role::Member));
}

#[tokio::test]
async fn who_is_removed_is_out_and_is_asked_about_before() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    let mut other = Browser::new(&world);
    let max = join(&mut other, org, "max@example.org", Role::Admin).await;
    let remove = format!("{}/remove", page_of(&max));

    let asked = browser.get(&remove).await;
    assert!(asked.text.contains("Remove max@example.org?"), "{}", asked.text);
    assert!(other.is_signed_in().await, "looking changes nothing");
    let done = browser.fill_in(&remove, &remove, &[]).await;

    assert_eq!((done.status, done.header("location")), (303, PEOPLE));
    assert!(!other.is_signed_in().await);
    next_step(&world);
    assert_eq!(other.sign_in(&max, &max.code(&world, 0)).await.status, 403);
    assert!(!browser.get(PEOPLE).await.text.contains("max@example.org"));
    assert_eq!(browser.get(&page_of(&max)).await.status, 404);
    assert_eq!(newest(&world, org, 1).await, [("user_removed".into(), "zoe@example.org".into())]);
}

#[tokio::test]
async fn the_last_admin_stays_one() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    let zoe = join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    // The one that the org began with has accepted no invitation, so cannot sign in.
    let page = page_of(&zoe);

    for (action, fields) in [("role", &[("role", "member")][..]), ("remove", &[])] {
        let refused = browser.fill_in(&page, &format!("{page}/{action}"), fields).await;
        assert_eq!(refused.status, 422, "{action}");
        assert!(refused.text.contains("the last admin of an org has to stay one"));
    }
    assert!(browser.is_signed_in().await);
    assert_eq!(role(&world, org, "zoe@example.org"), Some(Role::Admin));
}

#[tokio::test]
async fn an_admin_sees_where_somebody_is_signed_in_and_takes_over_nobody() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    let mut other = Browser::at(&world, "203.0.113.99");
    let max = join(&mut other, org, "max@example.org", Role::Member).await;

    let page = browser.get(&page_of(&max)).await.text;

    for part in ["203.0.113.99", "Lynx &#60;b&#62;", ">active<", "<dd>10</dd>"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    // The way back in is the operator's: no form of the console makes a link for who is active.
    assert!(page.contains(&format!("recover --user {}", max.id)), "{page}");
    let again = format!("{}/invite", page_of(&max));
    let refused = browser.fill_in(&page_of(&max), &again, &[("once", "x")]).await;
    assert_eq!(refused.status, 422);
    assert!(!refused.text.contains("/welcome/"), "{}", refused.text);
    assert!(browser.get(PEOPLE).await.text.contains("in 1 browser, last used"));
}

#[tokio::test]
async fn members_see_who_is_there_and_others_find_nobody() {
    let world = World::with(generous());
    let (org, foreign) = (world.org("acme").await, world.org("other").await);
    let mut admin = Browser::at(&world, "203.0.113.99");
    let zoe = join(&mut admin, org, "zoe@example.org", Role::Admin).await;
    let mut member = Browser::new(&world);
    join(&mut member, org, "max@example.org", Role::Member).await;
    let mut stranger = Browser::new(&world);
    join(&mut stranger, foreign, "eve@example.org", Role::Admin).await;
    let page = page_of(&zoe);

    let list = member.get(PEOPLE).await;
    assert!(list.text.contains("zoe@example.org"), "{}", list.text);
    for hidden in ["browser", "last used", &*page, "action=\"/console/people\""] {
        assert!(!list.text.contains(hidden), "{hidden}: {}", list.text);
    }
    for (browser, wanted) in [(&mut member, 403), (&mut stranger, 404)] {
        let proof = browser.get(PEOPLE).await.field("proof").unwrap().to_owned();
        for path in [page.clone(), format!("{page}/remove")] {
            assert_eq!(browser.get(&path).await.status, wanted, "{path}");
        }
        for action in ["role", "remove", "invite"] {
            let fields = [("proof", &*proof), ("role", "member")];
            let refused = browser.post(&format!("{page}/{action}"), &fields).await;
            assert_eq!(refused.status, wanted, "{action}");
        }
    }
    let proof = member.get(PEOPLE).await.field("proof").unwrap().to_owned();
    let fields = [("proof", &*proof), ("role", "admin"), ("email", "friend@example.org")];
    assert_eq!(member.post(PEOPLE, &fields).await.status, 403);
    assert!(!stranger.get(PEOPLE).await.text.contains("zoe@example.org"));
    assert!(world.engine.state().account(zoe.id).is_some_and(Account::is_active));
    assert_eq!(role(&world, org, "friend@example.org"), None);
}
