//! The man pages and the shell completions in `deploy/`: made here of the command line's own definitions, and compared.
//!
//! They are kept as files so that nobody who builds the program builds their generators. After a change of a command
//! or a setting, `SIDETAPE_WRITE_MANUAL=1 cargo test --test manual` writes them again.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory as _;
use clap_complete::Shell;
use rig::judges::{run, said};
use sidetape::commands::Cli;

/// Where each shell looks for the completions of a program has the name that it wants them by.
const SHELLS: [(Shell, &str); 3] =
    [(Shell::Bash, "sidetape.bash"), (Shell::Zsh, "_sidetape"), (Shell::Fish, "sidetape.fish")];

fn deploy(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(below)
}

/// The command line as the generators take it: without what the environment of this test would add to it.
fn command_line() -> clap::Command {
    Cli::command().disable_help_subcommand(true)
}

fn man_pages() -> BTreeMap<PathBuf, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    clap_mangen::generate_to(command_line(), folder.path()).unwrap();
    let pages = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap());
    pages.map(|page| (deploy("man").join(page.file_name()), fs::read(page.path()).unwrap())).collect()
}

fn completions() -> BTreeMap<PathBuf, Vec<u8>> {
    let of = |(shell, name): (Shell, &str)| {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command_line(), "sidetape", &mut text);
        (deploy("completions").join(name), text)
    };
    SHELLS.into_iter().map(of).collect()
}

#[test]
fn man_pages_and_completions_are_those_of_the_command_line() {
    for (folder, made) in [("man", man_pages()), ("completions", completions())] {
        if std::env::var_os("SIDETAPE_WRITE_MANUAL").is_some() {
            fs::create_dir_all(deploy(folder)).unwrap();
            made.iter().for_each(|(path, text)| fs::write(path, text).unwrap());
        }
        for (path, text) in &made {
            let kept = fs::read(path).unwrap_or_default();
            assert!(
                kept == *text,
                "{} is not what the command line says now: SIDETAPE_WRITE_MANUAL=1 cargo test --test manual",
                path.display()
            );
        }
        let kept = fs::read_dir(deploy(folder)).unwrap().count();
        assert_eq!(kept, made.len(), "deploy/{folder} holds something that nothing makes");
    }
}

#[test]
fn there_is_a_page_for_each_command_and_it_names_each_setting() {
    let pages = man_pages();
    for command in command_line().get_subcommands() {
        assert!(pages.contains_key(&deploy(&format!("man/sidetape-{}.1", command.get_name()))));
    }
    let serve = String::from_utf8(pages[&deploy("man/sidetape-serve.1")].clone()).unwrap();
    for variable in sidetape::config::VARIABLES {
        assert!(serve.contains(variable.name), "{} is not in sidetape-serve(1)", variable.name);
    }
}

#[test]
fn man_shows_the_pages_without_a_complaint() {
    for path in man_pages().keys() {
        let Some(output) = run(Command::new("man").args(["--warnings=w", "-l"]).arg(path)) else { continue };
        assert!(output.status.success() && output.stderr.is_empty(), "{}: {}", path.display(), said(&output));
        assert!(!output.stdout.is_empty(), "{}", path.display());
    }
}

#[test]
fn each_shell_completes_commands_and_flags() {
    let script = |name: &str| deploy("completions").join(name).display().to_string();
    let bash = format!(
        "source '{}'; COMP_WORDS=(sidetape serve --spool-f); COMP_CWORD=2; \
         _sidetape sidetape --spool-f serve; printf '%s ' \"${{COMPREPLY[@]}}\"; \
         COMP_WORDS=(sidetape rep); COMP_CWORD=1; _sidetape sidetape rep sidetape; printf '%s ' \"${{COMPREPLY[@]}}\"",
        script("sidetape.bash")
    );
    let fish = format!(
        "source '{}'; complete -C 'sidetape serve --spool-f'; complete -C 'sidetape rep'",
        script("sidetape.fish")
    );
    for (shell, text) in [("bash", bash), ("fish", fish)] {
        let Some(output) = run(Command::new(shell).args(["-c", &text])) else { continue };
        let said = said(&output);
        assert!(output.status.success() && said.contains("--spool-fsync-ms"), "{shell}: {said}");
        assert!(said.contains("replay") && !said.contains("recover"), "{shell}: {said}");
    }
    // zsh completes within its line editor only, so it has one: a terminal of its own, in which Tab is pressed.
    let zsh = format!(
        "zmodload zsh/zpty; zpty -b shell zsh -f -i; \
         zpty -w shell 'PROMPT=; fpath=({} $fpath); autoload -U compinit; compinit -u -D; echo be\"\"gun'; \
         zpty -r -m shell line '*begun*'; zpty -n -w shell $'sidetape serve --spool-f\\t'; \
         zpty -r -m shell line '*--spool-fsync-ms*' && print -r -- $line",
        deploy("completions").display()
    );
    if let Some(output) = run(Command::new("timeout").args(["60", "zsh", "-f", "-c", &zsh])) {
        let said = said(&output);
        assert!(output.status.success() && said.contains("--spool-fsync-ms"), "zsh: {said}");
    }
}
