//! Certificates: made once and used again, or from files; and a client that trusts them.

use super::{GIVE_UP, Reply, Running, options};
use anyhow::{Context, Result, ensure};
use darkroom::http::{Fingerprint, ServeError, ServerOptions, Tls, TlsError};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use std::{
    fs,
    io::{BufReader, Write},
    net::TcpStream,
    path::Path,
    sync::Arc,
    time::Duration,
};

fn self_signed(folder: &Path) -> ServerOptions {
    let tls = Tls::SelfSigned { folder: folder.to_owned() };
    ServerOptions { tls, hosts: vec!["photos.lan".to_owned()], ..options() }
}

/// A request from a client that trusts this certificate alone, and the fingerprint that it saw.
fn ask(server: &Running, certificate: &Path, name: &str) -> Result<(Reply, Fingerprint)> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(server.server.address())?;
    socket.set_read_timeout(Some(GIVE_UP))?;
    let client = ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned())?)?;
    let mut stream = StreamOwned::new(client, socket);
    stream.write_all(format!("GET /short HTTP/1.1\r\nhost: {name}\r\n\r\n").as_bytes())?;
    let mut stream = BufReader::new(stream);
    let reply = Reply::read(&mut stream)?;
    let seen = stream.get_ref().conn.peer_certificates().context("a certificate")?;
    Ok((reply, Fingerprint::of(&seen[0])))
}

#[test]
fn a_certificate_is_made_once_and_serves_all_names() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let tls = folder.path().join("data/tls");
    let (certificate, key) = (tls.join("certificate.pem"), tls.join("key.pem"));
    let first = Running::new(&self_signed(&tls))?.server.fingerprint().context("a fingerprint")?;
    let written = (fs::read(&certificate)?, fs::read(&key)?);

    let server = Running::new(&self_signed(&tls))?;
    ensure!(server.server.fingerprint() == Some(first));
    ensure!((fs::read(&certificate)?, fs::read(&key)?) == written);
    for name in ["localhost", "127.0.0.1", "photos.lan"] {
        let (reply, seen) = ask(&server, &certificate, name)?;
        ensure!(reply.is(200, "short"), "{name}: {reply:?}");
        ensure!(seen == first, "{name}: {seen}");
        ensure!(reply.header("strict-transport-security").is_none(), "nobody vouches for it");
    }
    ensure!(ask(&server, &certificate, "evil.example").is_err(), "it names no others");
    let text = first.to_string();
    let digits: Vec<_> = text.split(':').collect();
    ensure!(digits.len() == 32 && digits.iter().all(|pair| pair.len() == 2), "{text}");
    Ok(())
}

#[cfg(unix)]
#[test]
fn the_key_is_nobody_elses() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir()?;
    let tls = folder.path().join("tls");
    Running::new(&self_signed(&tls))?;
    let mode =
        |path: &Path| Ok::<_, std::io::Error>(fs::metadata(path)?.permissions().mode() & 0o777);
    ensure!(mode(&tls)? == 0o700, "{:o}", mode(&tls)?);
    ensure!(mode(&tls.join("key.pem"))? == 0o600);
    ensure!(mode(&tls.join("certificate.pem"))? == 0o600);
    ensure!(fs::read_dir(&tls)?.count() == 2, "nothing else is left there");
    Ok(())
}

#[test]
fn half_a_pair_is_made_anew() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let first = Running::new(&self_signed(folder.path()))?.server.fingerprint();
    for lost in ["key.pem", "certificate.pem"] {
        fs::remove_file(folder.path().join(lost))?;
        let server = Running::new(&self_signed(folder.path()))?;
        ensure!(server.server.fingerprint() != first);
        let (reply, _) = ask(&server, &folder.path().join("certificate.pem"), "localhost")?;
        ensure!(reply.status == 200, "without {lost}: {reply:?}");
    }
    Ok(())
}

#[test]
fn a_pair_that_was_written_half_is_made_anew() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let options = self_signed(folder.path());
    Running::new(&options)?;
    fs::remove_file(folder.path().join("key.pem"))?;
    let in_the_way = folder.path().join("certificate.part");
    fs::create_dir(&in_the_way)?;
    let error = Running::new(&options).err().context("a failure")?.to_string();
    ensure!(error.contains("cannot write") && error.contains("certificate.pem"), "{error}");
    fs::remove_dir(in_the_way)?;
    Running::new(&options)?;
    Ok(())
}

#[test]
fn a_certificate_from_files_binds_browsers_to_tls() -> Result<()> {
    let folder = tempfile::tempdir()?;
    Running::new(&self_signed(folder.path()))?;
    let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
    let tls = Tls::Files { certificate: certificate.clone(), key };
    let server = Running::new(&ServerOptions { tls, ..options() })?;
    let (reply, seen) = ask(&server, &certificate, "localhost")?;
    ensure!(reply.header("strict-transport-security") == Some("max-age=31536000"), "{reply:?}");
    ensure!(server.server.fingerprint() == Some(seen));
    Ok(())
}

#[test]
fn files_that_cannot_be_used_are_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    Running::new(&self_signed(&one))?;
    Running::new(&self_signed(&two))?;
    let empty = folder.path().join("empty.pem");
    fs::write(&empty, "no PEM\n")?;
    let failure = |certificate: &Path, key: &Path| {
        let tls = Tls::Files { certificate: certificate.to_owned(), key: key.to_owned() };
        let started = Running::new(&ServerOptions { tls, ..options() });
        match started.err().context("a failure")?.downcast()? {
            ServeError::Tls(error) => Ok(error),
            other => Err(anyhow::Error::from(other)),
        }
    };
    let (certificate, key) = (one.join("certificate.pem"), one.join("key.pem"));
    let error = failure(&folder.path().join("none.pem"), &key)?;
    ensure!(error.to_string().contains("cannot read") && error.to_string().contains("none.pem"));
    let error = failure(&empty, &key)?;
    ensure!(error.to_string().contains("empty.pem has no usable certificate"), "{error}");
    let error = failure(&certificate, &empty)?;
    ensure!(error.to_string().contains("empty.pem has no usable key"), "{error}");
    let error = failure(&certificate, &two.join("key.pem"))?;
    ensure!(matches!(error, TlsError::Pair { .. }), "{error}");
    Ok(())
}

#[test]
fn a_handshake_that_does_not_come_ends_its_connection() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let header_timeout = Duration::from_millis(300);
    let server = Running::new(&ServerOptions { header_timeout, ..self_signed(folder.path()) })?;
    let mut silent = server.connect()?;
    let mut half = server.connect()?;
    half.write(&[0x16, 0x03, 0x01])?;
    ensure!(silent.is_closed()? && half.is_closed()?);
    Ok(())
}
