//! `ldm-ort completions` and `ldm-ort man`, made from the command line's own description.

use std::io::Write;

use clap::CommandFactory;
use clap_mangen::Man;

use super::args::{Cli, CompletionsArgs, ManArgs};
use super::output;
use crate::error::{Error, Result};

/// Prints the completion script of a shell.
///
/// # Errors
/// [`Error::Io`] if standard output cannot be written.
pub(super) fn print_completions(args: &CompletionsArgs, out: &mut dyn Write) -> Result<()> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    output::text(out, &String::from_utf8_lossy(&script))
}

/// Prints a man page in roff.
///
/// # Errors
/// [`Error::Input`] if there is no such command, [`Error::Io`] if standard output cannot be written.
pub(super) fn print_man_page(args: &ManArgs, out: &mut dyn Write) -> Result<()> {
    let mut root = Cli::command();
    root.build();
    let page = match &args.command {
        None => root,
        Some(name) => {
            let found = root.find_subcommand(name).filter(|command| !command.is_hide_set());
            found
                .cloned()
                .ok_or_else(|| Error::input(name, "is no command of ldm-ort", "`ldm-ort --help` lists the commands"))?
        }
    };
    let mut text = Vec::new();
    Man::new(page).render(&mut text).map_err(|e| Error::io("a man page", "writing", e))?;
    output::text(out, &String::from_utf8_lossy(&text))
}

#[cfg(test)]
mod tests {
    use clap_complete::Shell;

    use super::*;

    fn man(command: Option<&str>) -> Result<String> {
        let mut text = Vec::new();
        print_man_page(&ManArgs { command: command.map(str::to_owned) }, &mut text)?;
        Ok(String::from_utf8(text).unwrap())
    }

    #[test]
    fn every_shell_completes_commands_and_flags() {
        for shell in [Shell::Bash, Shell::Elvish, Shell::Fish, Shell::PowerShell, Shell::Zsh] {
            let mut script = Vec::new();
            print_completions(&CompletionsArgs { shell }, &mut script).unwrap();
            let script = String::from_utf8(script).unwrap();
            for word in ["ldm-ort", "inspect", "negative-prompt", "completions"] {
                assert!(script.contains(word), "{shell}: no {word}");
            }
        }
    }

    #[test]
    fn man_pages_name_commands_and_flags() {
        let page = man(None).unwrap();
        assert!(page.starts_with(".ie") || page.contains(".TH ldm-ort 1"), "{page}");
        assert!(page.contains("inspect") && page.contains("130"), "{page}");
        let page = man(Some("run")).unwrap();
        assert!(page.contains(".TH ldm-ort-run 1"), "{page}");
        assert!(page.contains("negative\\-prompt") && page.contains("ldm\\-ort run pipeline.toml"), "{page}");
        assert!(matches!(man(Some("paint")), Err(Error::Input { .. })));
    }
}
