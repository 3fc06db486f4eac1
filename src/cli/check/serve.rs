//! What `evbus serve` would do by this config.

use serde_json::{Value, json};

use crate::cli::failure::Failure;
use crate::cli::style;
use crate::config::units::format_duration;
use crate::config::{Hook, ListenAddress, Permissions, PullSettings, ServeSettings, Token, Verify};
use crate::event::TypeFilter;
use crate::secret::SecretSource;
use crate::serve::{Access, Hooks};

/// The lines for `[serve]`. Of secrets they have the places alone.
pub(super) fn text(settings: &ServeSettings) -> String {
    let transport = match (&settings.tls, settings.behind_proxy) {
        (Some((certificate, _)), _) => format!("TLS by {}", certificate.display()),
        (None, true) => "behind a proxy".to_owned(),
        (None, false) => "in clear text".to_owned(),
    };
    let mut lines = vec!["serve".to_owned(), format!("  listens  {}, {transport}", listen(settings).join(", "))];
    if settings.tokens.is_empty() {
        lines.push("  tokens   none: whoever reaches it may do everything".to_owned());
    }
    let token = |token: &Token| format!("  token    {} by {}: {}", token.name, places(&token.secrets), may(&token.may));
    lines.extend(settings.tokens.iter().map(token));
    lines.extend(settings.hooks.iter().map(|(name, hook)| {
        let by = if hook.secrets.is_empty() { String::new() } else { format!(" by {}", places(&hook.secrets)) };
        format!("  hook     /hooks/{name}, {}{by}: {}", verified(&hook.verify), hook.type_)
    }));
    lines.extend(settings.groups.iter().map(|(name, pull)| {
        let PullSettings { lock, ordered, retry } = &**pull;
        let order = if *ordered { ", ordered by key" } else { "" };
        let (lock, attempts) = (format_duration(*lock), style::plural(u64::from(retry.max_attempts), "attempt"));
        format!("  group    {name}: locks of {lock}, dead after {attempts}{order}")
    }));
    lines.iter().map(|line| format!("{}\n", style::escape(line))).collect()
}

/// The same for programs.
pub(super) fn document(settings: &ServeSettings) -> Value {
    let hook = |(name, hook): (&String, &Hook)| json!({ "path": format!("/hooks/{name}"), "verify": verified(&hook.verify), "type": hook.type_.to_string() });
    json!({
        "listen": listen(settings),
        "tokens": settings.tokens.iter().map(|token| json!({ "name": token.name, "may": may(&token.may) })).collect::<Vec<_>>(),
        "hooks": settings.hooks.iter().map(hook).collect::<Vec<_>>(),
        "groups": settings.groups.keys().collect::<Vec<_>>(),
    })
}

/// Refuses what `serve` would refuse.
pub(super) fn check(settings: &ServeSettings) -> Result<(), Failure> {
    Access::new(settings, &settings.listen)?;
    Hooks::new(settings)?;
    Ok(())
}

fn listen(settings: &ServeSettings) -> Vec<String> {
    settings.listen.iter().map(ListenAddress::to_string).collect()
}

fn places(secrets: &[SecretSource]) -> String {
    secrets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn may(permissions: &Permissions) -> String {
    if permissions.admin {
        return "may do everything".to_owned();
    }
    let of = |verb: &str, types: &Option<TypeFilter>| {
        let all = |texts: Vec<String>| if texts.is_empty() { "**".to_owned() } else { texts.join(", ") };
        types.as_ref().map(|types| format!("{verb} {}", all(types.types_text())))
    };
    let pull = (!permissions.pull.is_empty()).then(|| format!("pull {}", permissions.pull.join(", ")));
    let all: Vec<String> =
        [of("emit", &permissions.emit), of("read", &permissions.read), pull].into_iter().flatten().collect();
    if all.is_empty() { "may do nothing".to_owned() } else { format!("may {}", all.join("; ")) }
}

fn verified(verify: &Verify) -> &'static str {
    match verify {
        Verify::None => "not verified",
        Verify::Github => "verified as github",
        Verify::Stripe => "verified as stripe",
        Verify::Slack => "verified as slack",
        Verify::Standard => "verified as standard",
        Verify::Hmac(_) => "verified as hmac",
    }
}
