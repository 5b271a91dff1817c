//! Expansion of `~` in paths.

use std::path::{Path, PathBuf};

/// Replaces a leading `~` with the user's home folder, since no shell does so in TOML and in `--flag=~/x`.
///
/// # Errors
///
/// A message if the path starts with another user's home (`~name`), or if this user has no home folder.
pub(crate) fn expand_home(path: &Path) -> Result<PathBuf, String> {
    let Some(rest) = path.to_str().and_then(|text| text.strip_prefix('~')) else { return Ok(path.to_path_buf()) };
    if !rest.is_empty() && !rest.starts_with(std::path::is_separator) {
        return Err(format!(
            "{} starts with another user's home folder, which is not supported; write the absolute path, or ./{} for a \
             name that starts with ~",
            path.display(),
            path.display()
        ));
    }
    let Some(folders) = directories::BaseDirs::new() else {
        return Err(format!("{} needs a home folder, but this user has none; write the absolute path", path.display()));
    };
    Ok(folders.home_dir().join(rest.trim_start_matches(std::path::is_separator)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_leading_tilde_is_the_home_folder() {
        let home = directories::BaseDirs::new().unwrap().home_dir().to_path_buf();
        let expanded = |text: &str| expand_home(Path::new(text));
        assert_eq!(expanded("~"), Ok(home.clone()));
        assert_eq!(expanded("~/"), Ok(home.clone()));
        assert_eq!(expanded("~/a/b.png"), Ok(home.join("a/b.png")));
        assert_eq!(expanded("~//a"), Ok(home.join("a")), "not the absolute path /a");
        for plain in ["a/~/b", "./~/b", "/~", "a~", "", "PROGRA~1"] {
            assert_eq!(expanded(plain), Ok(PathBuf::from(plain)));
        }
        for other in ["~root/a", "~root", "~+/a"] {
            assert!(expanded(other).unwrap_err().contains(other), "{other}");
        }
    }
}
