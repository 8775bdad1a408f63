//! The server's certificate and key: from files, or made here at first start.
//!
//! `server` calls [`load`]. The key is read, used and never shown; the certificate's fingerprint is
//! what an operator compares with what the browser shows.

use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};
use sha2::{Digest, Sha256};
use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};
use zeroize::Zeroizing;

/// Whether and how connections are encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Not at all.
    Off,
    /// With a certificate of our own making. Nobody vouches for it: who connects first compares the
    /// fingerprint.
    SelfSigned {
        /// Where `certificate.pem` and `key.pem` are kept; made if it is not there. A certificate
        /// that is there is used for ever, with the names it was made for; to get a new one, delete
        /// the folder.
        folder: PathBuf,
    },
    /// With a certificate from files in PEM form.
    Files {
        /// The certificate, followed by those that vouch for it.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file or folder could not be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was to be done.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file holds no certificate, or no key.
    #[error("{} has no usable {what} in PEM form: {source}", path.display())]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// Certificate and key are of no use together.
    #[error("{} and {} cannot be used: {source}", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        source: rustls::Error,
    },
    /// No certificate could be made.
    #[error("cannot make a certificate for the names in server.hosts: {0}")]
    Make(#[from] rcgen::Error),
}

/// The SHA-256 of a certificate, written as browsers and openssl write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate in DER form.
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .enumerate()
            .try_for_each(|(at, byte)| write!(f, "{}{byte:02X}", if at == 0 { "" } else { ":" }))
    }
}

/// What the server needs for TLS.
#[derive(Debug)]
pub(super) struct Secret {
    pub(super) config: Arc<ServerConfig>,
    pub(super) fingerprint: Fingerprint,
}

/// Reads what `tls` asks for, or makes it, for a server at `address` that is also called `names`.
pub(super) fn load(
    tls: &Tls,
    address: IpAddr,
    names: &[String],
) -> Result<Option<Secret>, TlsError> {
    match tls {
        Tls::Off => Ok(None),
        Tls::Files { certificate, key } => read(certificate, key).map(Some),
        Tls::SelfSigned { folder } => {
            let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
            if !(certificate.exists() && key.exists()) {
                make(folder, &certificate, &key, address, names)?;
            }
            read(&certificate, &key).map(Some)
        }
    }
}

fn read(certificate: &Path, key: &Path) -> Result<Secret, TlsError> {
    let pair = |source| TlsError::Pair { certificate: certificate.into(), key: key.into(), source };
    let unreadable = |what: &'static str, path: &Path, source| match source {
        pem::Error::Io(source) => TlsError::Io { what: "read", path: path.into(), source },
        source => TlsError::Pem { what, path: path.into(), source },
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) })
        .map_err(|source| unreadable("certificate", certificate, source))?;
    let secret =
        PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("key", key, error))?;
    let fingerprint = Fingerprint::of(&chain[0]);
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Secret { config: Arc::new(config), fingerprint })
}

/// Makes a key and a certificate for it. The certificate is written last and removed first, so that
/// both are there only if they belong together.
fn make(
    folder: &Path,
    certificate: &Path,
    key: &Path,
    address: IpAddr,
    names: &[String],
) -> Result<(), TlsError> {
    let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut all: Vec<String> = local.into_iter().chain([address.to_string()]).collect();
    all.extend(names.iter().map(|name| name.trim_matches(['[', ']']).to_owned()));
    all.sort();
    all.dedup();
    let pair = rcgen::KeyPair::generate()?;
    let text = rcgen::CertificateParams::new(all)?.self_signed(&pair)?.pem();

    let failed = |what, path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Io { what, path, source }
    };
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(failed("make", folder))?;
    if certificate.exists() {
        fs::remove_file(certificate).map_err(failed("remove", certificate))?;
    }
    let secret = Zeroizing::new(pair.serialize_pem());
    write(key, secret.as_bytes()).map_err(failed("write", key))?;
    write(certificate, text.as_bytes()).map_err(failed("write", certificate))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("write", folder))
}

/// Writes a file that nobody else may read, whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(part, path)
}
