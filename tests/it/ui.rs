//! The built-in pages: every file served, every reference found, nothing that their policy refuses.

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tower::ServiceExt;

/// What a page may name beside its own files: `http` serves the API's description.
const ELSEWHERE: &[&str] = &["/openapi.json"];

/// The one address that is a name, not a place.
const SVG_NAMESPACE: &str = "http://www.w3.org/2000/svg";

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

async fn fetch(path: &str, if_none_match: Option<&str>) -> Answer {
    let mut request = Request::get(path);
    if let Some(tags) = if_none_match {
        request = request.header(header::IF_NONE_MATCH, tags);
    }
    let request = request.body(Body::empty()).expect("the request is well-formed");
    let answer = darkroom::ui::router::<()>().with_state(()).oneshot(request).await;
    let (parts, body) = answer.expect("a router answers everything").into_parts();
    let body = body.collect().await.expect("the body is in memory").to_bytes().to_vec();
    Answer { status: parts.status, headers: parts.headers, body }
}

fn header<'a>(answer: &'a Answer, name: &header::HeaderName) -> &'a str {
    answer.headers.get(name).map_or("", |value| value.to_str().expect("the header is text"))
}

/// A file of src/ui/assets: where it lies, where it is served, and its text.
struct File {
    name: String,
    address: String,
    text: String,
}

fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ui/assets");
    let mut found = Vec::new();
    collect(&root, &mut found);
    assert!(found.len() >= 5, "{found:?}");
    let file = |path: PathBuf| {
        let name = path.strip_prefix(&root).expect("found below the root");
        let name = name.to_str().expect("names are text").replace('\\', "/");
        let address = match name.as_str() {
            "icon.svg" => "/favicon.svg".to_owned(),
            other => format!("/{}", other.trim_end_matches("/index.html")),
        };
        let text = std::fs::read_to_string(&path).expect("assets are text");
        File { name, address, text }
    };
    found.into_iter().map(file).collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            collect(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// What stands between `open` and the next `close`, everywhere in `text`.
fn between<'a>(text: &'a str, open: &str, close: char) -> Vec<&'a str> {
    let tails = text.match_indices(open).map(|(at, open)| &text[at + open.len()..]);
    tails.filter_map(|tail| tail.split_once(close)).map(|(inside, _)| inside).collect()
}

/// Everything in a file that makes a browser ask for another, as written there.
fn references(file: &File) -> Vec<&str> {
    let (_, kind) = file.name.rsplit_once('.').expect("every asset has an extension");
    let opens: &[(&str, char)] = match kind {
        "html" => &[("href=\"", '"'), ("src=\"", '"')],
        "css" => &[("url(", ')'), ("@import \"", '"')],
        "js" => &[("from '", '\''), ("import '", '\''), ("fetch('", '\''), ("import('", '\'')],
        _ => &[],
    };
    opens.iter().flat_map(|(open, close)| between(&file.text, open, *close)).collect()
}

/// The address that `reference` means in the file that is served at `base`.
fn resolve(base: &str, reference: &str) -> String {
    match reference.strip_prefix("./") {
        Some(beside) => format!("{}/{beside}", base.rsplit_once('/').map_or("", |(dir, _)| dir)),
        None => reference.to_owned(),
    }
}

#[tokio::test]
async fn every_file_of_the_folder_is_served_byte_for_byte() {
    let mut tags = BTreeSet::new();
    let files = files();
    for file in &files {
        let answer = fetch(&file.address, None).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", file.name);
        assert!(answer.body == file.text.as_bytes(), "{} is served with other bytes", file.name);
        let expected = match file.name.rsplit_once('.') {
            Some((_, "html")) => "text/html; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "js")) => "text/javascript; charset=utf-8",
            Some((_, "svg")) => "image/svg+xml",
            other => panic!("no content type is known for {other:?}"),
        };
        assert_eq!(header(&answer, &header::CONTENT_TYPE), expected, "{}", file.name);
        assert_eq!(header(&answer, &header::CACHE_CONTROL), "no-cache", "{}", file.name);
        tags.insert(header(&answer, &header::ETAG).to_owned());
    }
    assert_eq!(tags.len(), files.len(), "two files share an ETag: {tags:?}");
}

#[tokio::test]
async fn every_reference_of_a_page_leads_to_a_file_of_the_program() {
    let mut followed = 0;
    for file in files() {
        for reference in references(&file) {
            let address = resolve(&file.address, reference);
            followed += 1;
            if reference.starts_with('#') || ELSEWHERE.contains(&address.as_str()) {
                continue;
            }
            let status = fetch(&address, None).await.status;
            let found = status == StatusCode::OK || status == StatusCode::TEMPORARY_REDIRECT;
            assert!(found, "{} names {reference}, which answers {status}", file.name);
        }
    }
    assert!(followed >= 12, "only {followed} references were found: the search is blind");
}

#[test]
fn no_file_names_a_foreign_origin() {
    for file in files() {
        let text = file.text.replace(SVG_NAMESPACE, "");
        for foreign in ["http://", "https://", "ws://", "wss://", "\"//", "'//", "(//", "`//"] {
            assert!(!text.contains(foreign), "{} names a foreign origin: {foreign}", file.name);
        }
    }
}

/// The names of attributes in the tags of `html`, lower-cased.
fn attributes(html: &str) -> Vec<String> {
    let tags = between(html, "<", '>').into_iter().filter(|tag| !tag.starts_with('!'));
    let words = tags.flat_map(str::split_whitespace);
    words.filter_map(|word| word.split_once('=')).map(|(name, _)| name.to_lowercase()).collect()
}

#[test]
fn no_page_holds_what_its_policy_refuses() {
    for File { name, text, .. } in files() {
        let refused: &[&str] = match name.rsplit_once('.') {
            Some((_, "html" | "svg")) => {
                for attribute in attributes(&text) {
                    let inline = attribute == "style" || attribute.starts_with("on");
                    assert!(!inline, "{name} has an inline {attribute}");
                }
                for script in text.split("<script").skip(1) {
                    let (head, body) = script.split_once('>').expect("the tag ends");
                    let body = body.split("</script>").next().unwrap_or(body);
                    assert!(head.contains(" src=\"") && body.is_empty(), "{name}: {head}{body}");
                }
                &["<style", "javascript:", "<base", "<iframe", "<object", "<embed"]
            }
            Some((_, "css")) => &["@import", "url("],
            // Text becomes HTML in none of these ways, so a description cannot become a script.
            _ => &[
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "createContextualFragment",
                "document.write",
                "DOMParser",
                "eval(",
                "new Function",
                "'style'",
                "localStorage",
                "sessionStorage",
            ],
        };
        for word in refused {
            assert!(!text.contains(word), "{name} holds {word}");
        }
    }
}

#[tokio::test]
async fn a_copy_that_is_still_good_is_not_sent_again() {
    let first = fetch("/docs/api.js", None).await;
    let tag = header(&first, &header::ETAG).to_owned();
    let strong = tag.trim_start_matches("W/");
    assert_eq!(strong.len(), 66, "a SHA-256 in quotes: {tag}");
    for known in [&tag, strong, "*", &format!("\"other\", {tag}"), &format!("{strong},\"x\"")] {
        let answer = fetch("/docs/api.js", Some(known)).await;
        assert_eq!(answer.status, StatusCode::NOT_MODIFIED, "{known}");
        assert_eq!(answer.body, b"", "{known}");
        assert_eq!(header(&answer, &header::ETAG), tag);
        assert_eq!(header(&answer, &header::CACHE_CONTROL), "no-cache");
    }
    for other in ["\"other\"", "", "W/", &tag[..tag.len() - 2]] {
        let answer = fetch("/docs/api.js", Some(other)).await;
        assert_eq!(answer.status, StatusCode::OK, "{other}");
        assert_eq!(answer.body, first.body, "{other}");
    }
}

#[tokio::test]
async fn the_start_page_leads_to_the_api_page() {
    let answer = fetch("/", None).await;
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(header(&answer, &header::LOCATION), "/docs");
    assert_eq!(fetch("/docs/gone.js", None).await.status, StatusCode::NOT_FOUND);
}
