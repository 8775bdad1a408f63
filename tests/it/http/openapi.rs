//! The document of the API: it is what is checked in, and says of each route all that it may answer.

use super::Bench;
use crate::support::repository;
use anyhow::{Context, Result, ensure};
use axum::{body::Body, http::Method};
use darkroom::http::Code;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Set it to 1, and the document that the code gives becomes the one that is checked in.
const UPDATE: &str = "UPDATE_GOLDEN";

async fn document(bench: &Bench) -> Result<Value> {
    let answer = bench.get("/openapi.json").await?;
    ensure!(answer.status == 200 && answer.header("content-type") == Some("application/json"));
    answer.json()
}

/// Method, path and description of each operation.
fn operations(document: &Value) -> Result<Vec<(Method, String, &Value)>> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().context("paths")? {
        for (method, operation) in item.as_object().context("an item")? {
            let method = method.to_uppercase().parse()?;
            operations.push((method, path.clone(), operation));
        }
    }
    Ok(operations)
}

#[tokio::test]
async fn the_document_is_the_one_that_is_checked_in() -> Result<()> {
    let bench = Bench::new()?;
    let text = format!("{:#}\n", document(&bench).await?);
    let golden = repository("tests/golden/openapi.json");
    if std::env::var_os(UPDATE).is_some_and(|set| set == "1") {
        std::fs::write(&golden, &text)?;
    }
    let expected = std::fs::read_to_string(&golden)?;
    let difference = text.lines().zip(expected.lines()).find(|(new, old)| new != old);
    ensure!(
        text == expected,
        "the API is not the one of {}: {difference:?}; if that is meant, run the test with \
         {UPDATE}=1 and commit the file",
        golden.display()
    );
    Ok(())
}

#[tokio::test]
async fn every_operation_says_what_it_gives_and_how_it_fails() -> Result<()> {
    let bench = Bench::new()?;
    let document = document(&bench).await?;
    ensure!(document["openapi"] == "3.1.0" && document["servers"] == json!([{"url": "/"}]));
    let tags = document["tags"].as_array().context("tags")?;
    let tags: BTreeSet<_> = tags.iter().filter_map(|tag| tag["name"].as_str()).collect();
    ensure!(tags == BTreeSet::from(["edits", "images", "jobs", "server"]));
    let codes: BTreeSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
    let (mut ids, mut used) = (BTreeSet::new(), BTreeSet::new());
    for (method, path, operation) in operations(&document)? {
        let name = format!("{method} {path}");
        let text = |part: &str| {
            let text = operation[part].as_str().filter(|text| !text.is_empty());
            text.with_context(|| format!("{name}: no {part}"))
        };
        text("summary")?;
        ensure!(ids.insert(text("operationId")?.to_owned()), "{name}: its id is another's");
        let tag = operation["tags"][0].as_str().context(name.clone())?;
        ensure!(tags.contains(tag), "{name}: {tag}");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            ensure!(parameter["description"].is_string(), "{name}: {parameter}");
        }
        let responses = operation["responses"].as_object().context("responses")?;
        ensure!(responses.keys().any(|status| status.starts_with('2')), "{name}");
        for common in ["400", "421", "500"] {
            ensure!(responses.contains_key(common), "{name}: no {common}");
        }
        for (status, response) in responses {
            let says = response["description"].as_str().context("a description")?;
            let named: Vec<_> = says.split('`').skip(1).step_by(2).collect();
            let named: Vec<_> = named.into_iter().filter(|code| codes.contains(code)).collect();
            used.extend(named.iter().copied());
            let schema = &response["content"]["application/json"]["schema"]["$ref"];
            if schema == "#/components/schemas/ErrorBody" {
                ensure!(!named.is_empty(), "{name}: {status} names no code: {says}");
                for code in named {
                    let of = Code::ALL.iter().find(|of| of.name() == code).context("a code")?;
                    ensure!(of.status().as_str() == status, "{name}: {code} is not {status}");
                }
            } else {
                ensure!(!status.starts_with('4'), "{name}: {status} has another shape: {schema}");
            }
        }
    }
    let unused: Vec<_> = codes.difference(&used).collect();
    ensure!(unused.is_empty(), "no operation gives {unused:?}");
    Ok(())
}

#[tokio::test]
async fn every_code_is_listed_with_its_status() -> Result<()> {
    let bench = Bench::new()?;
    let document = document(&bench).await?;
    let listed = document["x-error-codes"].as_array().context("a list")?;
    ensure!(listed.len() == Code::ALL.len());
    for (row, code) in listed.iter().zip(Code::ALL) {
        let status = code.status().as_u16();
        let expected = json!({"code": code.name(), "status": status, "when": code.when()});
        ensure!(*row == expected, "{row}");
    }
    let names: BTreeSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
    ensure!(names.len() == Code::ALL.len(), "two codes have one name");
    Ok(())
}

#[tokio::test]
async fn every_reference_of_the_document_leads_somewhere() -> Result<()> {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let bench = Bench::new()?;
    let document = document(&bench).await?;
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    let schemas = document["components"]["schemas"].as_object().context("schemas")?;
    for reference in &found {
        let name = reference.strip_prefix("#/components/schemas/").context("a schema")?;
        ensure!(schemas.contains_key(name), "{reference}");
    }
    let all = schemas.keys().map(|name| format!("#/components/schemas/{name}"));
    let stray: Vec<_> = all.filter(|name| !found.contains(&**name)).collect();
    ensure!(stray.is_empty(), "nothing refers to {stray:?}");
    Ok(())
}

/// Routes come from the described handlers alone, so a route that the document lacks would have been
/// added past them; and what the document has, the router must know.
#[tokio::test]
async fn the_router_has_the_routes_of_the_document_and_no_others() -> Result<()> {
    let bench = Bench::new()?;
    let document = document(&bench).await?;
    let operations = operations(&document)?;
    for (method, path, _) in &operations {
        let path = path.replace("{id}", &"0".repeat(32));
        let request = super::request(method.clone(), &path).body(Body::empty())?;
        let answer = bench.send(request).await?;
        let known = answer.status != 405
            && (answer.status != 404
                || answer.json()?["error"]["message"] != nowhere(&bench).await?);
        ensure!(known, "{method} {path}: {answer:?}");
    }
    let documented: BTreeSet<_> =
        operations.iter().map(|(method, path, _)| (method.as_str(), path.as_str())).collect();
    let mut declared = 0;
    for file in std::fs::read_dir(repository("src/http"))? {
        let path = file?.path();
        let code = std::fs::read_to_string(&path)?;
        for past in [".route(", ".route_service(", ".nest(", ".nest_service("] {
            ensure!(!code.contains(past), "{}: {past}..) describes nothing", path.display());
        }
        for handler in code.split("#[utoipa::path(").skip(1) {
            let mut words = handler.split_whitespace();
            let method = words.next().context("a method")?.trim_end_matches(',').to_uppercase();
            let route = handler.split('"').nth(1).context("a path")?;
            ensure!(documented.contains(&(&*method, route)), "{method} {route} has no route");
            declared += 1;
        }
    }
    ensure!(declared == documented.len(), "{declared} handlers, {} operations", documented.len());
    Ok(())
}

/// What an address without a route is answered with.
async fn nowhere(bench: &Bench) -> Result<Value> {
    Ok(bench.get("/api/nowhere").await?.json()?["error"]["message"].take())
}
