//! The help line for a program that cannot be run.

use super::HelpLine;
use crate::handler::{Obstacle, ProgramError};

impl HelpLine {
    /// What to do about what keeps a handler from starting, where there is something.
    pub(in crate::cli) fn of_obstacle(obstacle: &Obstacle) -> Option<Self> {
        Some(match obstacle.program.as_ref()? {
            ProgramError::NotInPath { name } => match name.split_once(' ') {
                Some((program, _)) => format!("separate {program} and its arguments, or use --shell").into(),
                None => "name it by its path, or extend PATH".into(),
            },
            ProgramError::NotExecutable { file } => format!("chmod +x {}", file.display()).into(),
            ProgramError::NoProgram { .. } => "begin it with '#!/bin/sh'".into(),
            _ => return None,
        })
    }
}

/// An obstacle with its help line, in one line.
pub(in crate::cli) fn obstacle_text(obstacle: &Obstacle) -> String {
    let help = HelpLine::of_obstacle(obstacle).map_or_else(String::new, |help| format!(" (help: {help})"));
    format!("{}{help}", obstacle.why)
}
