//! Adapters over HTTP: the list, both forms of naming some, and what is refused.

use super::{Bench, Form, id, json_text};
use anyhow::{Result, ensure};
use darkroom::http::{Lora, Loras};
use serde_json::{Value, json};
use std::sync::Arc;

/// What every server of these tests lists.
pub(super) fn list() -> Loras {
    Loras(Arc::new(|| {
        let (families, kinds) = (vec!["diffusers"], vec!["lora"]);
        let name = "watercolour".to_owned();
        vec![Lora { name, bytes: 1234, families, kinds, rank: 16, error: None }]
    }))
}

/// The adapters that the server says a job was asked with.
fn said(job: &Value) -> &Value {
    &job["request"]["loras"]
}

#[tokio::test]
async fn the_list_says_what_each_is() -> Result<()> {
    let bench = Bench::new()?;
    let list = bench.get("/api/loras").await?.json()?;
    let expected = json!({ "loras": [{
        "name": "watercolour", "bytes": 1234, "families": ["diffusers"], "kinds": ["lora"],
        "rank": 16, "error": null,
    }] });
    ensure!(list == expected, "{list}");
    let refusal = bench.get("/api/loras?folder=/etc").await?;
    refusal.refusal(422, "unknown_field", Some("folder"))?;
    Ok(())
}

#[tokio::test]
async fn a_form_names_them_one_by_one_or_as_json() -> Result<()> {
    let mut bench = Bench::new()?;
    let one_by_one =
        Form::edit(1)?.text("loras", "one=-0.5").text("loras", " ").text("loras", "two");
    let both = json!([{ "name": "one", "scale": -0.5 }, { "name": "two", "scale": 1.0 }]);
    let job = bench.submit(&one_by_one).await?;
    ensure!(*said(&job) == both, "{job}");
    let job = bench.submit(&Form::edit(2)?.text("loras", &both.to_string())).await?;
    ensure!(*said(&job) == both, "{job}");
    let plain = bench.submit(&Form::edit(3)?).await?;
    ensure!(*said(&plain) == json!([]), "{plain}");
    bench.finish().await?;
    // What is stored says it too.
    let address = format!("/api/jobs/{}", id(&job)?);
    ensure!(*said(&bench.get(&address).await?.json()?) == both);
    let images = bench.get("/api/images").await?.json()?;
    let named = images["images"].as_array().into_iter().flatten().filter(|i| *said(i) == both);
    ensure!(named.count() == 2, "{images}");
    Ok(())
}

#[tokio::test]
async fn what_is_no_list_of_them_is_refused_with_the_field() -> Result<()> {
    let bench = Bench::new()?;
    let nine = vec![json!({ "name": "one" }); 9];
    let long = "x".repeat(101);
    let values = [
        json!("one"),
        json!(1),
        json!(true),
        json!({ "name": "one" }),
        json!(["one"]),
        json!([{ "name": "one", "strength": 1 }]),
        json!([{ "scale": 1 }]),
        json!([{ "name": "one", "scale": "1" }]),
        json!([{ "name": "one" }, null]),
        json!([[]]),
        json!([{ "name": "../one" }]),
        json!([{ "name": "one", "scale": 11 }]),
        json!([{ "name": long }]),
        json!(nine),
    ];
    for value in values {
        let edit = json!({ "prompt": "x", "loras": value });
        let answer = bench.post("/api/edits", &edit).await?;
        let message = answer.refusal(422, "invalid_parameter", Some("loras"))?;
        ensure!(message.starts_with("loras is "), "{message}");
    }
    let twice = r#"{"prompt": "x", "loras": [], "loras": []}"#;
    let answer = json_text(&bench, twice).await?;
    answer.refusal(422, "invalid_parameter", Some("loras"))?;
    for text in ["one=two", "a/b", "[{]", "[\"one\"]", "=1", "one=NaN", &"x=1,".repeat(2000)] {
        let answer = bench.send(Form::edit(1)?.text("loras", text).post()?).await?;
        answer.refusal(422, "invalid_parameter", Some("loras"))?;
    }
    bench.ensure_clean()
}
