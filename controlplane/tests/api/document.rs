//! The document of the API, and what follows from it for every operation.

use reqwest::Method;
use serde_json::Value;

use crate::held::{operation, resolve};
use crate::world::{OFFICE, World, within};

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
    let mut names = std::collections::BTreeSet::new();

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
