//! Where credentials come from: decided from the environment and the files alone.

use std::path::PathBuf;

use object_store::aws::AwsCredential;

use super::files::{Files, keys};
use super::role::{Login, Role, login};
use super::{CredentialInputs, CredentialsFailure, CredentialsResult};
use crate::store::BucketProblem;

/// Where credentials come from, and the roles that are then assumed, one after the other.
#[derive(PartialEq)]
pub(super) struct CredentialPlan {
    pub(super) base: CredentialSource,
    pub(super) roles: Vec<Role>,
}

/// The source of the first credentials.
#[derive(PartialEq)]
pub(super) enum CredentialSource {
    Keys(AwsCredential),
    Token { role: Role, file: PathBuf },
    Login(Login),
    Process { command: String, profile: String },
    Container,
    Machine,
}

/// What one profile says.
enum Step {
    Base(CredentialSource),
    /// A role, assumed with the credentials of this source.
    RoleFrom(Role, CredentialSource),
    /// A role, assumed with the credentials of this profile.
    RoleOf(Role, String),
    /// Nothing about credentials.
    Nothing,
}

impl CredentialInputs {
    pub(super) fn plan(&self) -> CredentialsResult<CredentialPlan> {
        let alone = |base| Ok(CredentialPlan { base, roles: Vec::new() });
        if self.profile.is_none()
            && let Some(keys) = self.environment_keys()?
        {
            return alone(CredentialSource::Keys(keys));
        }
        let files = self.files()?;
        let (profile, named) = self.profile();
        if named && !files.has(profile) {
            return Err(files.no_profile(profile));
        }
        if let Some(plan) = self.profile_plan(&files, profile)? {
            return Ok(plan);
        }
        if let (Some(file), Some(arn)) = (self.var("AWS_WEB_IDENTITY_TOKEN_FILE"), self.var("AWS_ROLE_ARN")) {
            let role = self.role(&files, profile, arn, &format!("role {arn} (AWS_ROLE_ARN)"))?;
            return alone(CredentialSource::Token { role, file: self.path(file) });
        }
        alone(if self.in_container() { CredentialSource::Container } else { CredentialSource::Machine })
    }

    fn environment_keys(&self) -> CredentialsResult<Option<AwsCredential>> {
        let token = self.var("AWS_SESSION_TOKEN").or_else(|| self.var("AWS_SECURITY_TOKEN"));
        match (self.var("AWS_ACCESS_KEY_ID"), self.var("AWS_SECRET_ACCESS_KEY")) {
            (Some(key), Some(secret)) => keys(key, secret, token, "the environment (AWS_…)").map(Some),
            (None, None) => Ok(None),
            (Some(_), None) => {
                Err(CredentialsFailure::of("AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not"))
            }
            (None, Some(_)) => {
                Err(CredentialsFailure::of("AWS_SECRET_ACCESS_KEY is set, but AWS_ACCESS_KEY_ID is not"))
            }
        }
    }

    fn in_container(&self) -> bool {
        let names = ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];
        names.into_iter().any(|name| self.var(name).is_some())
    }

    /// What a profile says, with the profiles that it leads to; none if it says nothing about
    /// credentials.
    fn profile_plan(&self, files: &Files, profile: &str) -> CredentialsResult<Option<CredentialPlan>> {
        let (mut roles, mut seen) = (Vec::new(), Vec::new());
        let mut at = profile.to_owned();
        loop {
            let base = match self.step(files, &at, &seen)? {
                Step::Nothing => return Ok(None),
                Step::RoleOf(role, source) => {
                    roles.push(role);
                    seen.push(std::mem::replace(&mut at, source));
                    continue;
                }
                Step::RoleFrom(role, source) => {
                    roles.push(role);
                    source
                }
                Step::Base(source) => source,
            };
            roles.reverse();
            return Ok(Some(CredentialPlan { base, roles }));
        }
    }

    /// What one profile says; `seen` are the profiles whose `source_profile` has led to it. A
    /// profile may be its own source: then its role is assumed with its keys.
    fn step(&self, files: &Files, at: &str, seen: &[String]) -> CredentialsResult<Step> {
        let get = |name: &str| files.get(at, name);
        let again = seen.iter().any(|seen| seen == at);
        if let Some(arn) = get("role_arn").filter(|_| !again) {
            return self.role_step(files, at, arn);
        }
        if ["sso_session", "sso_account_id", "sso_start_url"].into_iter().any(|name| get(name).is_some()) {
            return Ok(Step::Base(CredentialSource::Login(login(files, at)?)));
        }
        if let Some(keys) = files.keys(at)? {
            return Ok(Step::Base(CredentialSource::Keys(keys)));
        }
        if let Some(command) = get("credential_process") {
            let (command, profile) = (command.to_owned(), at.to_owned());
            return Ok(Step::Base(CredentialSource::Process { command, profile }));
        }
        if again {
            let way = format!("{}, {at}", seen.join(", "));
            return Err(refused(at, &format!("has a source_profile that leads back to it: {way}")));
        }
        let odd = ["login_session", "source_profile", "credential_source", "web_identity_token_file", "mfa_serial"];
        if let Some(odd) = odd.into_iter().find(|name| get(name).is_some()) {
            return Err(refused(at, &format!("uses {odd}, which evbus does not follow"))
                .because(BucketProblem::UnsupportedProfile));
        }
        match seen {
            [] => Ok(Step::Nothing),
            _ => Err(refused(at, "is a source_profile, but has no credentials")),
        }
    }

    fn role_step(&self, files: &Files, at: &str, arn: &str) -> CredentialsResult<Step> {
        let get = |name: &str| files.get(at, name);
        if get("mfa_serial").is_some() {
            return Err(
                refused(at, "asks for a code of an MFA device (mfa_serial)").because(BucketProblem::AsksForCode)
            );
        }
        let role = self.role(files, at, arn, &format!("role {arn} of AWS profile '{at}'"))?;
        match (get("source_profile"), get("credential_source"), get("web_identity_token_file")) {
            (None, None, Some(file)) => Ok(Step::Base(CredentialSource::Token { role, file: self.path(file) })),
            (Some(source), None, None) if files.has(source) => Ok(Step::RoleOf(role, source.to_owned())),
            (Some(source), None, None) => {
                Err(refused(at, &format!("has source_profile '{source}', which is not there")))
            }
            (None, Some(source), None) => Ok(Step::RoleFrom(role, self.credential_source(at, source)?)),
            (None, None, None) => Err(refused(at, "has a role_arn, but neither source_profile nor credential_source")),
            _ => {
                let names = "source_profile, credential_source, web_identity_token_file";
                Err(refused(at, &format!("has more than one of {names}")))
            }
        }
    }

    fn credential_source(&self, at: &str, source: &str) -> CredentialsResult<CredentialSource> {
        match source.to_ascii_lowercase().as_str() {
            "environment" => {
                let none = || refused(at, "takes its keys from the environment, where there are none");
                Ok(CredentialSource::Keys(self.environment_keys()?.ok_or_else(none)?))
            }
            "ec2instancemetadata" => Ok(CredentialSource::Machine),
            "ecscontainer" => Ok(CredentialSource::Container),
            _ => Err(refused(at, &format!("has an unknown credential_source '{source}'"))),
        }
    }
}

fn refused(profile: &str, what: &str) -> CredentialsFailure {
    CredentialsFailure::of(format!("AWS profile '{profile}' {what}"))
}
