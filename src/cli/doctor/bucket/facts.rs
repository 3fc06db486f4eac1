//! What a bucket is set up to do with what lies in it, and what that means for a bus.

use crate::cli::doctor::Finding;
use crate::store::object::{Bucket, Fact, Facts, Kind};

/// Region, versioning and lifecycle rules.
pub(in crate::cli::doctor) async fn facts(bucket: &Bucket) -> Vec<Finding> {
    match bucket.facts().await {
        Some(facts) => judged(&facts, bucket.region(), bucket.prefix.trim_matches('/')),
        None => vec![Finding::ok("versioning", unasked(bucket))],
    }
}

fn unasked(bucket: &Bucket) -> String {
    let how = match bucket.kind {
        Kind::Gcs => format!("gcloud storage buckets describe gs://{}", bucket.name),
        Kind::S3 | Kind::Azure => "az storage account blob-service-properties show".to_owned(),
    };
    format!("not looked at, nor lifecycle rules: {how}")
}

fn judged(facts: &Facts, signed: &str, prefix: &str) -> Vec<Finding> {
    let rules = match &facts.lifecycle {
        Fact::Told(text) => rules(text),
        _ => Vec::new(),
    };
    let touching: Vec<&Rule> = rules.iter().filter(|rule| rule.touches(prefix)).collect();
    let mut findings: Vec<Finding> = region(&facts.location, signed).into_iter().collect();
    findings.push(versioning(&facts.versioning, &facts.lifecycle, &touching));
    findings.push(lifecycle(&facts.lifecycle, &touching));
    findings
}

fn region(location: &Fact, signed: &str) -> Option<Finding> {
    let Fact::Told(text) = location else { return None };
    let told = text.split_once("<LocationConstraint").and_then(|(_, rest)| rest.split_once('>'));
    let told = told.and_then(|(_, rest)| rest.split('<').next()).map_or("", str::trim);
    let region = match told {
        "" => "us-east-1",
        "EU" => "eu-west-1",
        told => told,
    };
    Some(match region == signed {
        true => Finding::ok("region", region),
        false => Finding::warn("region", format!("the bucket is in {region}, requests are signed for {signed}"))
            .cure(format!("AWS_REGION={region}, or ?region={region}")),
    })
}

fn versioning(versioning: &Fact, lifecycle: &Fact, rules: &[&Rule]) -> Finding {
    const WHAT: &str = "versioning";
    let on = match versioning {
        Fact::Told(text) if text.contains("<Status>Enabled") => true,
        Fact::Told(text) if text.contains("<Status>Suspended") => return Finding::ok(WHAT, "suspended"),
        Fact::Told(_) | Fact::None => false,
        Fact::Denied => return Finding::ok(WHAT, "may not be seen (s3:GetBucketVersioning)"),
        Fact::Unknown => return Finding::ok(WHAT, "the server does not tell"),
    };
    match (on, rules.iter().any(|rule| rule.ends_old_versions)) {
        (false, _) => Finding::ok(WHAT, "off"),
        (true, true) => Finding::ok(WHAT, "on, and old versions expire"),
        (true, false) => {
            let unseen = if *lifecycle == Fact::Denied { " that may be seen" } else { "" };
            let what = format!(
                "on: what is deleted and each old state of a group stays and costs, for no lifecycle rule{unseen} ends it"
            );
            Finding::warn(WHAT, what).cure("a lifecycle rule with NoncurrentVersionExpiration for the bus's prefix")
        }
    }
}

fn lifecycle(lifecycle: &Fact, rules: &[&Rule]) -> Finding {
    const WHAT: &str = "lifecycle";
    match lifecycle {
        Fact::Denied => return Finding::ok(WHAT, "may not be seen (s3:GetLifecycleConfiguration)"),
        Fact::Unknown => return Finding::ok(WHAT, "the server does not tell"),
        Fact::Told(_) | Fact::None => {}
    }
    let named = |rule: &&&Rule| format!("'{}'", rule.id);
    let ends: Vec<String> = rules.iter().filter(|rule| rule.ends_objects).map(|rule| named(&rule)).collect();
    let moves: Vec<String> = rules.iter().filter(|rule| rule.moves_objects).map(|rule| named(&rule)).collect();
    if !ends.is_empty() {
        let what =
            format!("rule {} deletes what is on the bus: events that wait, groups and their state", ends.join(", "));
        return Finding::warn(WHAT, what)
            .cure("leave the bus's prefix out of it; evbus prune --keep 7d deletes what is done");
    }
    if !moves.is_empty() {
        let what = format!("rule {} moves what is on the bus to another storage class", moves.join(", "));
        return Finding::warn(WHAT, what).cure("leave the bus's prefix out of it: what is archived cannot be read");
    }
    Finding::ok(WHAT, "no rule deletes what is on the bus")
}

/// A rule that is enabled (Amazon S3 API reference, `LifecycleRule`).
struct Rule {
    id: String,
    prefix: String,
    ends_objects: bool,
    moves_objects: bool,
    ends_old_versions: bool,
}

impl Rule {
    /// Whether anything of the bus lies where it holds.
    fn touches(&self, bus: &str) -> bool {
        let bus = if bus.is_empty() { String::new() } else { format!("{bus}/") };
        bus.starts_with(&self.prefix) || self.prefix.starts_with(&bus)
    }
}

/// The enabled rules; those for objects with a tag are not for evbus's, which have none.
fn rules(text: &str) -> Vec<Rule> {
    let rules = text.split("<Rule>").skip(1).filter_map(|rest| rest.split("</Rule>").next());
    let rules = rules.filter(|rule| rule.contains("<Status>Enabled") && !rule.contains("<Tag>"));
    rules
        .map(|rule| {
            let within = |tag: &str| {
                let (_, rest) = rule.split_once(&format!("<{tag}>"))?;
                rest.split_once(&format!("</{tag}>")).map(|(inner, _)| inner)
            };
            let timed = |inner: &str| inner.contains("<Days>") || inner.contains("<Date>");
            Rule {
                id: within("ID").unwrap_or_default().to_owned(),
                prefix: within("Prefix").unwrap_or_default().to_owned(),
                ends_objects: within("Expiration").is_some_and(timed),
                moves_objects: within("Transition").is_some_and(timed),
                ends_old_versions: within("NoncurrentVersionExpiration").is_some(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(prefix: &str, what: &str) -> String {
        format!("<Rule><ID>r</ID><Filter><Prefix>{prefix}</Prefix></Filter><Status>Enabled</Status>{what}</Rule>")
    }

    fn lines(versioning: &str, lifecycle: &str, location: &str) -> Vec<String> {
        let told = |text: &str| if text.is_empty() { Fact::None } else { Fact::Told(text.to_owned()) };
        let location = Fact::Told(format!("<LocationConstraint xmlns=\"x\">{location}</LocationConstraint>"));
        let facts = Facts { versioning: told(versioning), lifecycle: told(lifecycle), location };
        judged(&facts, "us-east-1", "prod").iter().map(Finding::text).collect()
    }

    #[test]
    fn what_a_bucket_does_with_what_is_there_is_told() {
        let quiet = lines("<VersioningConfiguration/>", "", "");
        assert!(quiet.iter().all(|line| line.starts_with("ok ")), "{quiet:?}");
        let on = "<Status>Enabled</Status>";
        assert!(lines(on, "", "")[1].starts_with("warn versioning"));
        let ended = "<NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration>";
        let noncurrent = lines(on, &rule("", ended), "");
        assert!(noncurrent[1].starts_with("ok ") && noncurrent[2].starts_with("ok "), "{noncurrent:?}");
        assert!(lines(on, &rule("logs/", ended), "")[1].starts_with("warn versioning"));
        assert!(lines("", "", "eu-west-1")[0].contains("AWS_REGION=eu-west-1"));
    }

    #[test]
    fn a_rule_that_deletes_what_is_on_the_bus_is_told() {
        let expires = "<Expiration><Days>30</Days></Expiration>";
        for prefix in ["", "pro", "prod/", "prod/events/"] {
            assert!(lines("", &rule(prefix, expires), "")[2].starts_with("warn lifecycle"), "{prefix}");
        }
        for prefix in ["product/", "logs/"] {
            assert!(lines("", &rule(prefix, expires), "")[2].starts_with("ok "), "{prefix}");
        }
        let markers = "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>";
        assert!(lines("", &rule("", markers), "")[2].starts_with("ok "));
        let tagged = rule("", expires).replace("<Filter>", "<Filter><Tag>t</Tag>");
        assert!(lines("", &tagged, "")[2].starts_with("ok "));
        assert!(lines("", &rule("", expires).replace("Enabled", "Disabled"), "")[2].starts_with("ok "));
        assert!(lines("", &rule("", "<Transition><Days>9</Days></Transition>"), "")[2].contains("storage class"));
    }
}
