//! A pulled model runs; variants of a manifest; encryption.

use super::{
    Place, error_of,
    server::{LocalHub, Repository, What},
};
use crate::support::{expect, repository};
use anyhow::{Context, Result, ensure};
use darkroom::config::Manifest;
use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    thread,
};

/// The manifest of a model on the hub: the golden model's, and a second form of it.
const SOURCE: &str = r#"
[source]
repo = "Lab/Small.Model"
precision = "f32"

[source.bytes]
transformer = 1_000_000
text_encoder_2 = 900_000

[[variants]]
name = "huge"
about = "more than any machine has"

[variants.parts.transformer]
repo = "lab/huge"
path = "huge.gguf"
precision = "f64"
bytes = 9_000_000_000_000_000

[[variants]]
name = "full"
about = "as it is"

[[variants]]
name = "mixed"
about = "its VAE from elsewhere"

[variants.parts.vae]
repo = "lab/parts"
path = "files/vae-q8.gguf"
precision = "Q8_0"
bytes = 1000
"#;

/// Every file of the golden model `base`, linked where it is large.
fn base(name: &str) -> Result<Repository> {
    fn add(folder: &Path, below: &str, repository: &mut Repository) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let path = format!("{below}{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                add(&entry.path(), &format!("{path}/"), repository)?;
            } else {
                let bytes = fs::read(entry.path())?;
                let linked = path.ends_with(".safetensors");
                repository.files.push(super::server::File { path, bytes, linked });
            }
        }
        Ok(())
    }
    let mut base = Repository::new(name, &[("README.md", b"x", false)]);
    add(&repository("tests/golden/models/base/model"), "", &mut base)?;
    Ok(base)
}

fn place() -> Result<Place> {
    let parts = Repository::new(
        "lab/parts",
        &[("files/vae-q8.gguf", b"GGUF", true), ("files/vae-q4.gguf", b"GGU", true)],
    );
    let place = Place::new(vec![base("Lab/Small.Model")?, parts])?;
    let manifest = fs::read_to_string(repository("models/kontext-tiny.toml"))?;
    fs::write(place.models().join("small.toml"), manifest + SOURCE)?;
    Ok(place)
}

const EDIT: &str = "tests/golden/models/base/cases/edit_square/input.png";

#[test]
fn a_pulled_model_runs() -> Result<()> {
    let place = place()?;
    let input = repository(EDIT);
    let input = input.to_string_lossy();
    let edit = ["edit", "--model", "small", "--image", &input, "--prompt", "x", "--exact-size"];
    let edit = [&edit[..], &["--steps", "1", "-o", "out.png"]].concat();
    let said = place.fail(&edit)?;
    expect(&said, &["the files of model small are not all in", "`darkroom pull small` gets them"])?;

    let (out, said) = place.succeed(&["pull", "small"])?;
    ensure!(out.is_empty(), "{out}");
    let reason = ["small, variant full: ", "GiB for a job fit in ", "; huge would need "];
    expect(&said, &reason)?;
    expect(
        &said,
        &["licence of its weights: MIT", "small is complete: ", "the hub vouched for 4"],
    )?;
    place.succeed(&edit)?;
    ensure!(fs::read(place.path().join("out.png"))?.starts_with(b"\x89PNG"));

    // The manifest is found by the repository as well, and what is here decides.
    place.hub.requests();
    let (_, said) = place.succeed(&["pull", "lab/small.model"])?;
    expect(
        &said,
        &["small, variant full: it is the one that is here", " are here, 0 bytes to come"],
    )?;
    let said = place.fail(&["pull", "small", "--variant", "mixed"])?;
    expect(&said, &["variant \"full\"", "variant \"mixed\"", "darkroom models remove small"])
}

#[test]
fn half_a_model_is_told_and_does_not_run() -> Result<()> {
    let place = place()?;
    place.hub.fail("/cdn/", 99, What::Status(403, String::new()));
    expect(&place.fail(&["pull", "small"])?, &["status 403"])?;
    let (out, _) = place.succeed(&["models", "list"])?;
    let line = out.lines().find(|line| line.starts_with("small ")).context("a line")?;
    expect(line, &["in part", "full"])?;
    let said = place.fail(&["edit", "--model", "small", "--prompt", "x"])?;
    expect(&said, &["the files of model small are not all in"])?;
    place.hub.heal();
    place.succeed(&["pull", "small"])?;
    let (out, _) = place.succeed(&["models", "list"])?;
    let line = out.lines().find(|line| line.starts_with("small ")).context("a line")?;
    expect(line, &["yes", "full", "MIT OR Apache-2.0", "4 of "])
}

#[test]
fn a_variant_takes_its_parts_from_where_they_are() -> Result<()> {
    let place = place()?;
    let said = place.fail(&["pull", "small", "--variant", "q9"])?;
    expect(&said, &["no variant \"q9\"", "huge, full, mixed"])?;
    place.succeed(&["pull", "small", "--variant", "mixed"])?;
    let folder = place.models().join("small");
    ensure!(fs::read(folder.join("vae-q8.gguf"))? == b"GGUF");
    ensure!(!folder.join("vae").exists() && !folder.join("vae-q4.gguf").exists());
    ensure!(folder.join("transformer/config.json").exists());
    let manifest = Manifest::open(&place.models().join("small.toml"))?.of_variant("mixed");
    ensure!(manifest.components.vae.path == Path::new("vae-q8.gguf"));
    ensure!(manifest.components.vae.format == "file");
    ensure!(manifest.components.transformer.path == Path::new("transformer"));
    let said = place.fail(&["pull", "small", "--variant", "huge"])?;
    expect(&said, &["variant \"mixed\"", "variant \"huge\""])
}

#[test]
fn the_released_model_has_variants_that_shrink() -> Result<()> {
    let manifest = Manifest::released()?;
    let bytes: Vec<u64> = manifest.variants.iter().map(|v| manifest.bytes(v)).collect();
    let names: Vec<&str> = manifest.variants.iter().map(|v| v.name.as_str()).collect();
    ensure!(names.first() == Some(&"bf16") && names.len() >= 4, "{names:?}");
    // 12 billion parameters in the transformer and 4.8 in T5, at 16 and at about 5 bits.
    let gigabytes = |bytes: u64| bytes / 1_000_000_000;
    ensure!(bytes.first().copied().map(gigabytes) == Some(33), "{bytes:?}");
    ensure!(bytes.last().copied().map(gigabytes) == Some(11), "{bytes:?}");
    for variant in &manifest.variants {
        let parts = manifest.parts(variant);
        ensure!(parts.len() == 7, "{}", variant.name);
        let precise = parts.iter().find(|(name, ..)| *name == "transformer").context("a part")?;
        ensure!(precise.1.bytes > 5_000_000_000, "{}", variant.name);
    }
    Ok(())
}

#[test]
fn a_folder_decides_the_variant_that_it_has() -> Result<()> {
    let place = place()?;
    let folder = place.path().join("got");
    for file in base("x")?.files {
        let path = folder.join(&file.path);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(path, file.bytes)?;
    }
    fs::remove_dir_all(folder.join("vae"))?;
    let said = place.fail(&["pull", "small", "--from", "got", "--variant", "full"])?;
    expect(&said, &["got has no vae/, which small needs"])?;
    // It lies flat, as a person downloads it.
    fs::write(folder.join("vae-q8.gguf"), b"GGUF")?;
    place.hub.requests();
    let (_, said) = place.succeed(&["pull", "small", "--from", "got"])?;
    expect(
        &said,
        &["small, variant mixed: its files are in that folder", "the hub vouched for 0"],
    )?;
    ensure!(place.models().join("small/vae-q8.gguf").is_file());
    ensure!(place.hub.requests().is_empty(), "nobody was asked");
    Ok(())
}

/// Encrypts what comes to `hub`, with a certificate that this machine does not know.
fn encrypted(hub: &LocalHub, certificate: &Path) -> Result<u16> {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    fs::write(certificate, key.cert.pem())?;
    let chain = vec![key.cert.der().clone()];
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der())
        .map_err(anyhow::Error::msg)?;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()?
    .with_no_client_auth()
    .with_single_cert(chain, private)?;
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let to = hub.url().trim_start_matches("http://").to_owned();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, to) = (config.clone(), to.clone());
            thread::spawn(move || drop(relay(config, stream, &to)));
        }
    });
    Ok(port)
}

/// One request there, one answer back.
fn relay(config: Arc<rustls::ServerConfig>, stream: TcpStream, to: &str) -> Result<()> {
    let mut client = rustls::StreamOwned::new(rustls::ServerConnection::new(config)?, stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let mut server = TcpStream::connect(to)?;
    server.write_all(&head)?;
    server.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    client.write_all(&answer)?;
    client.conn.send_close_notify();
    client.flush()?;
    Ok(())
}

#[test]
fn an_encrypted_hub_has_to_be_one_that_this_machine_trusts() -> Result<()> {
    let mut tiny = super::tiny();
    // All from the hub itself: its second address is not encrypted.
    tiny.files.iter_mut().for_each(|file| file.linked = false);
    let place = Place::new(vec![tiny])?;
    let certificate = place.path().join("ca.pem");
    let port = encrypted(&place.hub, &certificate)?;
    let pull = |trust: &Path, token: &str| {
        let mut command = place.command(&["pull", super::REPO]);
        command.env("HF_ENDPOINT", format!("https://localhost:{port}"));
        command.env("SSL_CERT_FILE", trust).env("HF_TOKEN", token).output()
    };
    // Another that is valid, but not the one.
    let other = place.path().join("other.pem");
    encrypted(&place.hub, &other)?;
    let said = error_of(&pull(&other, "")?)?;
    expect(&said, &["localhost cannot be reached", "certificate"])?;
    fs::write(&other, "")?;
    expect(&error_of(&pull(&other, "")?)?, &["no certificates of authorities", "SSL_CERT_FILE"])?;
    ensure!(place.hub.requests().is_empty(), "nobody was asked");

    let output = pull(&certificate, super::server::TOKEN)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(place.files()? == super::MODEL, "{:?}", place.files());
    let bearer = format!("Bearer {}", super::server::TOKEN);
    let requests = place.hub.requests();
    ensure!(requests.iter().all(|request| request.head.get("authorization") == Some(&bearer)));

    // From there to an address without encryption is no way.
    place.succeed(&["models", "remove", "tiny", "--yes"])?;
    place.hub.change(|repositories| *repositories = vec![super::tiny()]);
    let said = error_of(&pull(&certificate, "")?)?;
    expect(&said, &["localhost redirects from https to http"])
}
