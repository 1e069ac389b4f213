//! Two admins who edit the same thing in the console. The witness is the API.

use postern_controlplane::domain::Role;
use postern_shared::ids::OrgId;
use postern_shared::scope::Scope;
use postern_shared::time::Expiry;
use serde_json::{Value, json};

use crate::browser::{Browser, Page, join};
use crate::console_groups::admin;
use crate::world::{OFFICE, World, generous};

const CHANGED: &str =
    "somebody changed it since you opened this page, and nothing of yours was saved";

/// What the form of a page carries beside what is written into it.
fn carried(page: &Page) -> [(&'static str, String); 2] {
    ["proof", "version"].map(|name| (name, page.field(name).unwrap().to_owned()))
}

async fn post(
    browser: &mut Browser<'_>,
    path: &str,
    fields: &[(&str, &str)],
    carried: &[(&'static str, String)],
) -> Page {
    let carried = carried.iter().map(|(name, text)| (*name, &**text));
    let fields: Vec<(&str, &str)> = fields.iter().copied().chain(carried).collect();
    browser.post(path, &fields).await
}

async fn witness(world: &World, org: OrgId, path: &str) -> Value {
    world.holder(&world.key(org).await, OFFICE).data(&format!("/api/v1/{path}")).await
}

#[tokio::test]
async fn the_second_of_two_edits_is_told_what_is_so_by_now_and_overwrites_nothing() {
    let world = World::with(generous());
    let (org, mut zoe) = admin(&world).await;
    let mut max = Browser::new(&world);
    join(&mut max, org, "max@example.org", Role::Admin).await;
    world.group(org).await;
    world.pair(org, 3_600).await;
    let pair = |name| [("name", name), ("email", ""), ("ttl", "2h")];
    let group = |name| [("name", name), ("ttl", "12h")];

    for (page, api, first, second) in [
        ("/console/pairs/1", "pairs/1", pair("one").to_vec(), pair("two").to_vec()),
        ("/console/groups/1", "groups/1", group("one").to_vec(), group("two").to_vec()),
    ] {
        let [theirs, ours] = [carried(&zoe.get(page).await), carried(&max.get(page).await)];
        assert_eq!(theirs[1], ours[1], "both see the same");
        assert_eq!(post(&mut zoe, page, &first, &theirs).await.status, 303);

        let refused = post(&mut max, page, &second, &ours).await;

        assert_eq!(refused.status, 422, "{}", refused.text);
        assert!(refused.text.contains(CHANGED), "{}", refused.text);
        let told = "the name is `one` now, and `two` in this form.";
        assert!(refused.text.contains(told), "{}", refused.text);
        assert!(!refused.text.contains("the longest time is"), "only what differs");
        assert!(refused.text.contains("value=\"two\""), "what was written stays in the form");
        assert_eq!(witness(&world, org, api).await["name"], "one");
        let again = post(&mut max, page, &second, &carried(&refused)).await;
        assert_eq!(again.status, 303, "{}", again.text);
        assert_eq!(witness(&world, org, api).await["name"], "two");
        let unsaid = post(&mut zoe, page, &first, &theirs[..1]).await;
        assert_eq!(unsaid.status, 422, "a form that does not say what it has shown");
    }
}

#[tokio::test]
async fn groups_of_a_host_and_rights_of_a_key_are_held_to_what_was_shown() {
    let world = World::with(generous());
    let (org, mut zoe) = admin(&world).await;
    let mut max = Browser::new(&world);
    join(&mut max, org, "max@example.org", Role::Admin).await;
    let (group, _) = (world.group(org).await, world.group(org).await);
    let agent = crate::agents::enrol(&world, &world.invite(org, &[group]).await).await;
    let (key, _) = world.key_with(org, &Scope::ALL, &[OFFICE], Expiry::Never).await;
    let host = format!("/console/agents/{}", agent.answer.agent);
    let key_page = format!("/console/keys/{key}");
    let narrow = |scope| vec![(scope, "yes"), ("origins", OFFICE)];

    for (page, action, first, second, told) in [
        (
            &host,
            format!("{host}/groups"),
            vec![("group-2", "yes")],
            vec![("group-1", "yes"), ("group-2", "yes")],
            "now it follows web.",
        ),
        (
            &key_page,
            key_page.clone(),
            narrow("scope-pairs.write"),
            narrow("scope-pairs.read"),
            "now it may do pairs.write, from 198.51.100.7.",
        ),
    ] {
        let [theirs, ours] = [carried(&zoe.get(page).await), carried(&max.get(page).await)];
        assert_eq!(post(&mut zoe, &action, &first, &theirs).await.status, 303);

        let refused = post(&mut max, &action, &second, &ours).await;

        assert_eq!(refused.status, 422, "{}", refused.text);
        assert!(refused.text.contains(CHANGED), "{}", refused.text);
        assert!(refused.text.contains(told), "{}", refused.text);
    }

    let scopes = witness(&world, org, &format!("account/keys/{key}")).await["scopes"].clone();
    assert_eq!(scopes, json!(["pairs.write"]));
    let state = world.engine.state();
    assert_eq!(state.agent(agent.answer.agent).unwrap().groups.len(), 1);
}
