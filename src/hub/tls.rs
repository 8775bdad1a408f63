//! Encryption of connections to a hub, with the authorities that this machine trusts: those of the
//! system, so that a company's own mirror works as it does in a browser. `SSL_CERT_FILE` names
//! others.

use rustls::{ClientConfig, RootCertStore, crypto::ring};
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// What opens encrypted connections, or why none can be opened.
pub(super) fn connector() -> Result<TlsConnector, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(format!(
            "this machine has no certificates of authorities{reason}: install ca-certificates, or \
             name a file with them in SSL_CERT_FILE"
        ));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
