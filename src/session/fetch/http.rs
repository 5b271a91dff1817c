//! Talking to the package index.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::error::{Error, Result};
use crate::files;
use crate::guard::contain;
use crate::session::Cancel;
use crate::threads;

/// How long a server may stay silent.
const PATIENCE: Duration = Duration::from_secs(60);
/// The time after which the switch that stops a download is looked at again.
const PERIOD: Duration = Duration::from_millis(100);
/// The most parts of an answer that wait to be taken.
const WAITING: usize = 4;

/// Talks to a server on a thread of its own, and hands each thing that `talk` sends to `take`. So a name that is looked up,
/// a connection that is opened or a server that is silent doesn't keep a thrown switch waiting; the thread is left to run
/// into its own timeout then.
///
/// # Errors
/// [`Error::Interrupted`] when `cancel` was thrown; [`Error::Io`] if the thread can't be started; those of `take`.
pub(super) fn listen<T: Send + 'static>(
    cancel: &Cancel,
    talk: impl FnOnce(&SyncSender<T>) + Send + 'static,
    mut take: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let (sender, receiver) = sync_channel(WAITING);
    threads::spawn("download", move || {
        // The receiver learns of a panic by the end of what is sent.
        let _ = contain(|| talk(&sender));
    })?;
    loop {
        let received = receiver.recv_timeout(PERIOD);
        if cancel.is_cancelled() {
            return Err(Error::Interrupted { at_step: None });
        }
        match received {
            Ok(part) => take(part)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// Makes a client that trusts the certificates in `ca_bundle`, or those the system trusts. Proxies are those that the
/// environment names (`HTTPS_PROXY` and the like), as ureq reads them.
///
/// # Errors
/// [`Error::Runtime`] where `ca_bundle` cannot be read or holds no certificate.
pub(super) fn agent(ca_bundle: Option<&Path>) -> Result<ureq::Agent> {
    let roots = match ca_bundle {
        Some(path) => certificates(path)?,
        None => RootCerts::PlatformVerifier,
    };
    Ok(ureq::Agent::config_builder()
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .user_agent(concat!("ldm-ort/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .timeout_per_read(Some(PATIENCE))
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
            format!("{}: holds no certificate in PEM form", path.display()),
            "SSL_CERT_FILE names it; name a bundle of certificates, or unset the variable",
        ));
    }
    Ok(RootCerts::from(certificates))
}

/// An address as it may be shown: without a name and password that stand in it.
pub(super) fn shown(url: &str) -> String {
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

/// The host of an address.
pub(super) fn host(url: &str) -> String {
    let shown = shown(url);
    let rest = shown.split_once("://").map_or(shown.as_str(), |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(shown("https://me:secret@mirror.example/simple/x/"), "https://mirror.example/simple/x/");
        assert_eq!(host("https://me:secret@mirror.example:8080/simple"), "mirror.example:8080");
        assert_eq!(host("http://127.0.0.1:81"), "127.0.0.1:81");
    }

    #[test]
    fn a_bundle_without_certificates_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "nothing here").unwrap();
        let error = agent(Some(file.path())).unwrap_err().to_string();
        assert!(error.contains("holds no certificate"), "{error}");
        let error = agent(Some(Path::new("/nowhere/ca.pem"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/ca.pem"), "{error}");
    }
}
