//! The Python package index: finds its URL, and the URL of one of its files.
//!
//! Requests ask for the JSON form of the "simple" repository interface (PEP 691). The answer may have the older HTML
//! form (PEP 503), the only one that some mirrors support.

use std::path::PathBuf;
use std::sync::mpsc::SyncSender;

use serde::Deserialize;

use super::http::{listen, without_credentials};
use super::wheel::{Wheel, project};
use crate::error::Result;
use crate::files;
use crate::session::Cancel;
use crate::session::library::Env;

const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, text/html;q=0.1";

/// Returns the URL of the public Python package index.
fn public_index() -> String {
    let (name, domain) = ("pypi", "org");
    format!("https://{name}.{domain}/simple")
}

/// Returns the URL of the index to use, without a final slash.
pub(super) fn address(env: &Env) -> String {
    let url = env.index_url.clone().or_else(|| pip_index(&env.pip_config)).unwrap_or_else(public_index);
    url.trim().trim_end_matches('/').to_string()
}

/// Returns the `index-url` of the first of pip's configuration files that has one.
fn pip_index(files: &[PathBuf]) -> Option<String> {
    files.iter().filter_map(|file| files::read_text(file).ok()).find_map(|text| {
        let mut global = false;
        text.lines().map(str::trim).find_map(|line| {
            if line.starts_with('[') {
                global = line.eq_ignore_ascii_case("[global]");
                return None;
            }
            let (key, value) = line.split_once(['=', ':'])?;
            let is_index = matches!(key.trim(), "index-url" | "index_url");
            (global && is_index && !value.trim().is_empty()).then(|| value.trim().to_string())
        })
    })
}

#[derive(Deserialize)]
struct Page {
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    filename: String,
    url: String,
    #[serde(default)]
    hashes: Hashes,
}

#[derive(Deserialize, Default)]
struct Hashes {
    sha256: Option<String>,
}

/// Requests the URL of a wheel from the index.
///
/// The inner error is one sentence.
///
/// # Errors
/// As [`listen`].
pub(super) fn find(
    agent: &ureq::Agent,
    index: &str,
    wheel: &Wheel<'_>,
    cancel: &Cancel,
) -> Result<std::result::Result<String, String>> {
    let page = format!("{index}/{}/", project(wheel.flavor));
    let (agent, asked) = (agent.clone(), page.clone());
    let mut answer = Err(format!("asking {} failed", without_credentials(&page)));
    let talk = move |sender: &SyncSender<_>| drop(sender.send(request_page(&agent, &asked)));
    listen(cancel, talk, |answered| {
        answer = answered;
        Ok(())
    })?;
    Ok(answer.and_then(|(is_html, text)| {
        let found = if is_html { find_in_html(&text, wheel) } else { find_in_json(&text, wheel) };
        found.map(|url| resolve(&page, &url)).map_err(|problem| format!("{} {problem}", without_credentials(&page)))
    }))
}

/// Returns a page's text, and true if it is HTML.
fn request_page(agent: &ureq::Agent, page: &str) -> std::result::Result<(bool, String), String> {
    let failed = |e: &dyn std::fmt::Display| format!("asking {} failed: {e}", without_credentials(page));
    let mut response = agent.get(page).header("Accept", ACCEPT).call().map_err(|e| failed(&e))?;
    let is_html = response.body().mime_type().is_some_and(|mime| mime.starts_with("text/html"));
    // The page of a project with hundreds of files is half a megabyte.
    let config = response.body_mut().with_config().limit(64 << 20).lossy_utf8(true);
    config.read_to_string().map(|text| (is_html, text)).map_err(|e| failed(&e))
}

fn find_in_json(text: &str, wheel: &Wheel<'_>) -> std::result::Result<String, String> {
    let page: Page = serde_json::from_str(text).map_err(|e| format!("is not a page of a package index: {e}"))?;
    let file = page.files.into_iter().find(|f| f.filename == wheel.file).ok_or_else(|| missing(wheel))?;
    match file.hashes.sha256 {
        Some(sha256) if !sha256.eq_ignore_ascii_case(wheel.sha256) => {
            Err(format!("offers another {} than the official one (sha256 {sha256} for {})", wheel.file, wheel.sha256))
        }
        _ => Ok(file.url),
    }
}

fn find_in_html(text: &str, wheel: &Wheel<'_>) -> std::result::Result<String, String> {
    let links = text.split("href=").skip(1).filter_map(|rest| {
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let link = rest.get(1..)?.split(quote).next()?;
        Some(link.split('#').next().unwrap_or_default().replace("&amp;", "&"))
    });
    let is_wheel =
        |link: &String| link.split('?').next().is_some_and(|path| path.rsplit('/').next() == Some(wheel.file));
    links.into_iter().find(is_wheel).ok_or_else(|| missing(wheel))
}

fn missing(wheel: &Wheel<'_>) -> String {
    format!("does not offer {}", wheel.file)
}

/// Resolves a link on a page to a URL.
fn resolve(page: &str, link: &str) -> String {
    if link.contains("://") {
        return link.to_string();
    }
    let (scheme, rest) = page.split_once("://").unwrap_or(("https", page));
    if let Some(elsewhere) = link.strip_prefix("//") {
        return format!("{scheme}://{elsewhere}");
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut parts: Vec<&str> = match link.starts_with('/') {
        true => Vec::new(),
        false => path.split('/').collect(),
    };
    // The part after the page's last slash is the page itself.
    parts.pop();
    for part in link.trim_start_matches('/').split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    format!("{scheme}://{host}/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Flavor;

    const WHEEL: Wheel<'static> =
        Wheel { flavor: Flavor::Cpu, os: "linux", arch: "x86_64", file: "a-1.whl", sha256: "ab", bytes: 1 };

    #[test]
    fn finds_a_file_on_a_json_page() {
        let page = r#"{"meta": {"api-version": "1.1"}, "name": "a", "files": [
            {"filename": "a-0.whl", "url": "https://h/0", "hashes": {}},
            {"filename": "a-1.whl", "url": "https://h/1", "hashes": {"sha256": "AB"}, "size": 3, "yanked": false}]}"#;
        assert_eq!(find_in_json(page, &WHEEL).unwrap(), "https://h/1");
        let error = find_in_json(&page.replace("AB", "cd"), &WHEEL).unwrap_err();
        assert!(error.contains("another a-1.whl") && error.contains("cd") && error.contains("ab"), "{error}");
        let error = find_in_json(r#"{"files": []}"#, &WHEEL).unwrap_err();
        assert_eq!(error, "does not offer a-1.whl");
        assert!(find_in_json("<html>", &WHEEL).unwrap_err().contains("not a page of a package index"));
    }

    #[test]
    fn finds_a_file_on_an_html_page() {
        let page = r#"<a href="../../p/a-0.whl#sha256=00">a-0.whl</a><br>
            <a data-x="1" href='../../p/a-1.whl?x=1&amp;y=2#sha256=ab'>a-1.whl</a>"#;
        assert_eq!(find_in_html(page, &WHEEL).unwrap(), "../../p/a-1.whl?x=1&y=2");
        assert_eq!(find_in_html("<html></html>", &WHEEL).unwrap_err(), "does not offer a-1.whl");
    }

    #[test]
    fn resolves_links() {
        let page = "https://mirror.example/simple/a/";
        for (link, expected) in [
            ("https://files.example/a.whl", "https://files.example/a.whl"),
            ("//files.example/a.whl", "https://files.example/a.whl"),
            ("/p/a.whl", "https://mirror.example/p/a.whl"),
            ("a.whl", "https://mirror.example/simple/a/a.whl"),
            ("../../p/./a.whl", "https://mirror.example/p/a.whl"),
        ] {
            assert_eq!(resolve(page, link), expected);
        }
    }

    #[test]
    fn the_index_is_the_one_asked_for_then_pips_then_the_public_one() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("pip.conf");
        std::fs::write(&conf, "[install]\nindex-url = https://no\n[global]\ncert = x\nindex-url = https://mirror/s/\n")
            .unwrap();
        let env = Env { pip_config: vec![dir.path().join("none"), conf], ..Env::default() };
        assert_eq!(address(&env), "https://mirror/s");
        assert_eq!(address(&Env { index_url: Some("https://own/simple/".into()), ..env }), "https://own/simple");
        let public = address(&Env::default());
        assert!(public.starts_with("https://") && public.ends_with("/simple"), "{public}");
    }
}
