//! Dangerous verbs say what they would do and ask; where nobody can be asked they need `--yes`.

use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::style;

/// Says `what` would be done and asks. False: the user said no. `command` is what to type where nobody can be asked.
pub(in crate::cli) fn agreed(what: &str, yes: bool, command: &str) -> Result<bool, Failure> {
    let what = style::escape(what);
    if yes {
        return Ok(true);
    }
    if !output::can_ask() {
        return Err(
            Failure::usage(format!("this {what}; nobody is at a terminal to agree")).help(format!("{command} --yes"))
        );
    }
    output::note(&format!("this {what}"));
    let answer =
        output::confirm("go on?").map_err(|error| Failure::failed(format!("cannot read the answer: {error}")))?;
    if !answer {
        output::note("nothing was changed");
    }
    Ok(answer)
}
