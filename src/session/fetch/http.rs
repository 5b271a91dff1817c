//! The HTTP client for the package index.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::error::{Error, Result};
use crate::files;
use crate::guard::contain;
use crate::session::Cancel;
use crate::threads;

/// The timeout for a silent server.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The interval at which a download checks for cancellation.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The maximum number of received parts that wait for processing.
const MAX_PENDING_PARTS: usize = 4;

/// Runs `talk` on its own thread and passes each value it sends to `take`. A name lookup, a connection or a silent
/// server therefore does not delay cancellation; the thread is then left to its own timeout.
///
/// # Errors
/// [`Error::Interrupted`] if `cancel` was cancelled; [`Error::Io`] if the thread can't be started; those of `take`.
pub(super) fn listen<T: Send + 'static>(
    cancel: &Cancel,
    talk: impl FnOnce(&SyncSender<T>) + Send + 'static,
    mut take: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let (sender, receiver) = sync_channel(MAX_PENDING_PARTS);
    threads::spawn("download", move || {
        // After a panic, the receiver sees the end of the channel.
        let _ = contain(|| talk(&sender));
    })?;
    loop {
        let received = receiver.recv_timeout(POLL_INTERVAL);
        cancel.check()?;
        match received {
            Ok(part) => take(part)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// Creates a client that trusts the certificates in `ca_bundle`, or the system's. Proxies come from the environment
/// (`HTTPS_PROXY` and the like), as ureq reads them.
///
/// # Errors
/// [`Error::Runtime`] if `ca_bundle` cannot be read or contains no certificate.
pub(super) fn agent(ca_bundle: Option<&Path>) -> Result<ureq::Agent> {
    let roots = match ca_bundle {
        Some(path) => certificates(path)?,
        None => RootCerts::PlatformVerifier,
    };
    Ok(ureq::Agent::config_builder()
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .user_agent(concat!("ldm-ort/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(TIMEOUT))
        .timeout_recv_response(Some(TIMEOUT))
        .timeout_per_read(Some(TIMEOUT))
        .build()
        .new_agent())
}

fn certificates(path: &Path) -> Result<RootCerts> {
    let pem = files::read(path).map_err(|e| Error::io(path, "reading certificates", e))?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(Error::runtime(
            format!("{}: contains no PEM certificate", path.display()),
            "set SSL_CERT_FILE to a bundle of certificates, or unset it",
        ));
    }
    Ok(RootCerts::from(certificates))
}

/// Returns a URL without its user name and password, for messages.
pub(super) fn without_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find('/').unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => url.to_string(),
    }
}

/// Returns the host of a URL.
pub(super) fn host(url: &str) -> String {
    let shown = without_credentials(url);
    let rest = shown.split_once("://").map_or(shown.as_str(), |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(
            without_credentials("https://me:secret@mirror.example/simple/x/"),
            "https://mirror.example/simple/x/"
        );
        assert_eq!(host("https://me:secret@mirror.example:8080/simple"), "mirror.example:8080");
        assert_eq!(host("http://127.0.0.1:81"), "127.0.0.1:81");
    }

    #[test]
    fn a_bundle_without_certificates_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "nothing here").unwrap();
        let error = agent(Some(file.path())).unwrap_err().to_string();
        assert!(error.contains("contains no PEM certificate"), "{error}");
        let error = agent(Some(Path::new("/nowhere/ca.pem"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/ca.pem"), "{error}");
    }
}
