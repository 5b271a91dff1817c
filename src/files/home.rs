//! `~` in paths.

use std::path::{Path, PathBuf};

/// Replaces a leading `~` with the user's home folder, as a shell does: in TOML and in `--flag=~/x` no shell does it.
///
/// # Errors
///
/// A message if the path begins with another user's home (`~name`), which only a shell can look up, or if this user has
/// no home folder.
pub(crate) fn expand_home(path: &Path) -> Result<PathBuf, String> {
    let Some(rest) = path.to_str().and_then(|text| text.strip_prefix('~')) else { return Ok(path.to_path_buf()) };
    if !rest.is_empty() && !rest.starts_with(std::path::is_separator) {
        return Err(format!(
            "{} begins with another user's home folder, which is not looked up; write the absolute path, or ./{} for a \
             name that begins with ~",
            path.display(),
            path.display()
        ));
    }
    let Some(folders) = directories::BaseDirs::new() else {
        return Err(format!(
            "{} is in the home folder, and this user has none; write the absolute path",
            path.display()
        ));
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
