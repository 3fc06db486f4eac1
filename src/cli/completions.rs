//! `evbus completions`: prints completion scripts for shells.

use clap_complete::Shell;

use super::exit::Code;
use super::failure::Failure;
use super::output::Out;

/// Print a shell's completion script
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus completions bash > ~/.local/share/bash-completion/completions/evbus
  evbus completions zsh > \"${fpath[1]}/_evbus\"
  evbus completions fish > ~/.config/fish/completions/evbus.fish")]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

pub(super) fn run(args: CompletionsArgs) -> Result<Code, Failure> {
    let shell = match args.shell.as_str() {
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => Shell::Bash,
    };
    Out::new().bytes(&script(shell))?;
    Ok(Code::Done)
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "evbus", &mut script);
    script
}

/// All completion scripts, by the names under which packages install them.
pub fn scripts() -> Vec<(String, Vec<u8>)> {
    let named = [("evbus.bash", Shell::Bash), ("_evbus", Shell::Zsh), ("evbus.fish", Shell::Fish)];
    named.map(|(name, shell)| (name.to_owned(), script(shell))).to_vec()
}
