//! The evbus program: hands everything to [`evbus::cli`] and exits with its code.

use std::process::ExitCode;

fn main() -> ExitCode {
    evbus::cli::main()
}
