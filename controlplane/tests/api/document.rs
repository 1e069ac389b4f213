//! The document of the API, and what follows from it for every operation.

use std::collections::BTreeSet;
use std::time::Duration;

use postern_controlplane::domain::{Command, MemberKind};
use postern_shared::ids::OrgId;
use postern_shared::scope::{Scope, ScopeSet};
use postern_shared::time::Expiry;
use postern_shared::token::{Token, TokenKind};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::held::{operation, resolve};
use crate::world::{Caller, OFFICE, World, generous, problem, start_time, within};

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// Every operation: its method, its path and its description.
pub(crate) fn operations(document: &Value) -> Vec<(Method, String, Value)> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS {
            if let Some(operation) = item.get(method) {
                let method = method.to_uppercase().parse().unwrap();
                operations.push((method, path.clone(), operation.clone()));
            }
        }
    }
    operations
}

#[tokio::test]
async fn the_document_is_told_to_anybody_and_kept_by_its_version() {
    let world = World::start();

    let answer = world.at(OFFICE).get("/api/v1/openapi.json").await;

    assert_eq!(answer.status(), 200);
    let etag = answer.headers()["etag"].clone();
    let document: Value = within(answer.json()).await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["servers"][0]["url"], "/api/v1");
    let request = world.at(OFFICE).request(Method::GET, "/api/v1/openapi.json");
    let again = within(request.header("if-none-match", etag).send()).await.unwrap();
    assert_eq!(again.status(), 304);
}

#[tokio::test]
async fn every_operation_has_a_name_of_its_own_and_says_what_can_happen() {
    let world = World::start();
    let document = world.held.document().await.clone();
    let mut names = BTreeSet::new();

    for (method, path, described) in operations(&document) {
        let case = format!("{method} {path}");
        let name = described["operationId"].as_str().unwrap().to_owned();
        assert!(names.insert(name), "{case}: its name is another's");
        assert!(described["summary"].is_string(), "{case}");
        assert!(described["security"].is_array(), "{case}: who may");
        assert!(operation(&document, &method, &path).is_some(), "{case}");
        for parameter in described["parameters"].as_array().into_iter().flatten() {
            let is_said = parameter["description"].is_string();
            assert!(is_said, "{case}: {} says nothing", parameter["name"]);
            assert_eq!(
                parameter["required"],
                parameter["in"] == "path" || path == "/stream" || parameter["name"] == "at",
                "{case}"
            );
        }
        for (status, response) in described["responses"].as_object().unwrap() {
            let response = resolve(&document, response);
            assert_ne!(response["description"], "", "{case} {status}");
        }
    }
}

/// The scope that an operation needs of a key; `None` where every key may, or none.
fn scope(described: &Value) -> Option<Scope> {
    let requirements = described["security"].as_array().unwrap();
    let scopes = requirements.iter().find_map(|one| one["key"].as_array())?;
    scopes.first().map(|scope| scope.as_str().unwrap().parse().unwrap())
}

/// A body that the operation takes.
fn body(method: &Method, path: &str) -> Option<Value> {
    match (method, path) {
        (&Method::PATCH, "/account/keys/{id}") => Some(json!({ "origins": [OFFICE] })),
        (&Method::PATCH, _) => Some(json!({ "name": "mine now" })),
        (&Method::POST, "/pairs" | "/groups") => Some(json!({ "name": "new" })),
        (&Method::POST, "/groups/{id}/members") => {
            Some(json!({ "cidr": "203.0.113.0/24", "note": "office" }))
        }
        _ => None,
    }
}

async fn call(caller: &Caller<'_>, method: &Method, path: &str, sent: Option<&Value>) -> Response {
    let request = caller.request(method.clone(), &format!("/api/v1{path}"));
    let request = match sent {
        Some(sent) => request.json(sent),
        None => request,
    };
    within(request.send()).await.unwrap()
}

/// What there is of one org for the operations to be about.
struct Estate {
    org: OrgId,
    pair: String,
    group: String,
    member: String,
    key: String,
}

impl Estate {
    async fn of(world: &World, name: &str) -> Estate {
        let org = world.org(name).await;
        let (pair, group) = (world.pair(org, 3_600).await, world.group(org).await);
        world.member(org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
        let (key, _) = world.key_with(org, &[], &[OFFICE], Expiry::Never).await;
        let member = *world.engine.state().group(group).unwrap().members.keys().next().unwrap();
        Estate {
            org,
            pair: pair.id.to_string(),
            group: group.to_string(),
            member: member.to_string(),
            key: key.to_string(),
        }
    }

    /// The path of an operation, about things of this estate.
    fn path(&self, template: &str) -> String {
        let id = match template {
            path if path.starts_with("/pairs/") => &self.pair,
            path if path.starts_with("/groups/") => &self.group,
            path if path.starts_with("/account/keys/") => &self.key,
            path => {
                assert!(!path.contains('{'), "say what {path} is about");
                ""
            }
        };
        let path = template.replace("{id}", id).replace("{member}", &self.member);
        match template {
            "/stream" => format!("/stream?group={}", self.group),
            "/groups/{id}/history" => format!("{path}?at={}", start_time()),
            _ => path,
        }
    }
}

#[tokio::test]
async fn of_secret_state_origin_and_scope_one_cell_opens_each_operation() {
    let world = World::with(generous());
    let document = world.held.document().await.clone();
    let mut unauthorized = BTreeSet::new();
    for (method, template, described) in operations(&document) {
        let Some(needed) = scope(&described) else { continue };
        for secret in ["right", "unknown"] {
            for state in ["live", "revoked", "expired"] {
                for origin in [OFFICE, "198.51.100.8"] {
                    for given in Scope::ALL {
                        let estate = Estate::of(&world, "acme").await;
                        let key = key(&world, estate.org, given, state).await;
                        let unknown = world.engine.chance().token(TokenKind::Key);
                        let shown = if secret == "right" { &key } else { &unknown };
                        let caller = world.holder(shown, origin);
                        let path = estate.path(&template);
                        let sent = body(&method, &template);
                        let answer = call(&caller, &method, &path, sent.as_ref()).await;

                        let case =
                            format!("{method} {template}: {secret} {state} {origin} {given}");
                        let may = [given].into_iter().collect::<ScopeSet>().allows(needed);
                        let expected =
                            match (secret == "right" && state == "live", origin == OFFICE) {
                                (false, _) => Some("unauthorized"),
                                (true, false) => Some("forbidden_origin"),
                                (true, true) if !may => Some("insufficient_scope"),
                                (true, true) => None,
                            };
                        let Some(expected) = expected else {
                            assert!(answer.status().is_success(), "{case}: {}", answer.status());
                            continue;
                        };
                        let status = answer.status().as_u16();
                        let told = problem(answer).await;
                        assert_eq!(told["type"], expected, "{case}");
                        if status == 401 {
                            unauthorized.insert(told.to_string());
                        }
                    }
                }
            }
        }
    }
    assert_eq!(unauthorized.len(), 1, "why a secret is not good is not told: {unauthorized:?}");
}

/// A key in a state, with one scope.
async fn key(world: &World, org: OrgId, scope: Scope, state: &str) -> Token {
    let soon = world.engine.now().saturating_add(Duration::from_secs(1));
    let expires = if state == "expired" { Expiry::At(soon) } else { Expiry::Never };
    let (id, token) = world.key_with(org, &[scope], &[OFFICE], expires).await;
    match state {
        "revoked" => world.order(Command::RevokeKey { org, key: id }).await,
        "expired" => world.clock.advance(Duration::from_secs(1)),
        _ => {}
    }
    token
}

#[tokio::test]
async fn no_operation_tells_what_is_another_orgs_from_what_never_was() {
    let world = World::with(generous());
    let document = world.held.document().await.clone();
    let (ours, theirs) = (Estate::of(&world, "ours").await, Estate::of(&world, "theirs").await);
    let caller_key = world.key(ours.org).await;
    let caller = world.holder(&caller_key, OFFICE);
    let never = "6f1c9a52-6a0f-4f0e-9d2b-0d6f0f6f3f10".to_owned();
    let unknown = Estate {
        org: ours.org,
        pair: never.clone(),
        group: never.clone(),
        member: never.clone(),
        key: never.clone(),
    };
    let in_ours = |member: &str| Estate {
        org: ours.org,
        pair: never.clone(),
        group: ours.group.clone(),
        member: member.to_owned(),
        key: never.clone(),
    };
    let (in_ours, in_ours_unknown) = (in_ours(&theirs.member), in_ours(&never));
    let mut asked = 0;
    for (method, template, described) in operations(&document) {
        if scope(&described).is_none() || !template.contains('{') {
            continue;
        }
        let sent = body(&method, &template);
        let ask = async |estate: &Estate| {
            let answer = call(&caller, &method, &estate.path(&template), sent.as_ref()).await;
            (answer.status().as_u16(), problem(answer).await)
        };

        let foreign = ask(&theirs).await;
        assert_eq!(foreign.0, 404, "{method} {template}");
        assert_eq!(foreign, ask(&unknown).await, "{method} {template}");
        if template.contains("{member}") {
            assert_eq!(ask(&in_ours).await, ask(&in_ours_unknown).await, "{method} {template}");
        }
        asked += 1;
    }
    assert!(10 < asked, "{asked}");
    assert_eq!(world.engine.state().org(theirs.org).unwrap().pairs_live, 1);
}
