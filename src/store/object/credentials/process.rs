//! A program that gives credentials (`credential_process`).

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::ask::{clean, json_keys, object};
use super::{CredentialsFailure, CredentialsResult, Fetch, FetchedCredential};

/// How long the program may take: it may ask a server or the user.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(60);

impl Fetch<'_> {
    pub(super) async fn process(&self, command: &str, profile: &str) -> CredentialsResult<FetchedCredential> {
        // The arguments of the program may be secret.
        let program = command.split_whitespace().next().unwrap_or_default();
        let at = format!("credential_process '{program}' of AWS profile '{profile}'");
        let mut run = tokio::process::Command::new("sh");
        run.arg("-c").arg(command).env_clear().envs(&self.who.vars).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(PROCESS_TIMEOUT, run.output()).await;
        let output = output
            .map_err(|_| CredentialsFailure::passing(format!("{at}: no answer in {} s", PROCESS_TIMEOUT.as_secs())))?;
        let output = output.map_err(|error| CredentialsFailure::of(format!("{at} cannot be run: {error}")))?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let last = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
            return Err(CredentialsFailure::of(format!("{at} failed ({}): {}", output.status, clean(last))));
        }
        let answer = object(&String::from_utf8_lossy(&output.stdout), &at)?;
        match answer.get("Version").and_then(Value::as_i64) {
            Some(1) => json_keys(&answer, "SessionToken", &at),
            _ => Err(CredentialsFailure::of(format!("{at} answers without \"Version\": 1"))),
        }
    }
}
