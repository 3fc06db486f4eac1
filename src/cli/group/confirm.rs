//! Confirmation of dangerous commands: they say what they would do and ask; without a terminal they
//! need `--yes`.

use crate::cli::failure::Failure;
use crate::cli::help_line::HelpPart;
use crate::cli::output;
use crate::cli::style;

/// Says `what` would be done and asks; false if the answer is no. Without a terminal it is an error
/// with `command` as the cure.
pub(in crate::cli) fn confirmed(what: &str, yes: bool, command: &HelpPart) -> Result<bool, Failure> {
    let what = style::escape(what);
    if yes {
        return Ok(true);
    }
    if !output::can_ask() {
        return Err(Failure::usage(format!("this {what}; without a terminal it needs --yes")).help(command.clone()));
    }
    output::note(&format!("this {what}"));
    let answer =
        output::confirm("go on?").map_err(|error| Failure::failed(format!("cannot read the answer: {error}")))?;
    if !answer {
        output::note("nothing was changed");
    }
    Ok(answer)
}
