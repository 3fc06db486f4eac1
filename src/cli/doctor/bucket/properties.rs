//! Checks of a bucket's region, versioning and lifecycle rules.

use std::time::Duration;

use crate::bus::keys;
use crate::cli::doctor::Finding;
use crate::cli::help_line::{command, text};
use crate::cli::times;
use crate::store::object::{Bucket, BucketProperties, BucketProperty, Kind, Rule, Versioning};

/// The findings on region, versioning and lifecycle rules.
pub(in crate::cli::doctor) async fn properties(bucket: &Bucket) -> Vec<Finding> {
    let signed = (bucket.kind == Kind::S3).then(|| bucket.region());
    judged(&bucket.properties(keys::BUS).await, bucket, signed)
}

/// `signed` is the region that requests are signed for.
fn judged(properties: &BucketProperties, bucket: &Bucket, signed: Option<&str>) -> Vec<Finding> {
    let prefix = bucket.prefix.trim_matches('/');
    let rules: &[Rule] = match &properties.rules {
        BucketProperty::Known(rules) => rules,
        _ => &[],
    };
    let touching: Vec<&Rule> = rules.iter().filter(|rule| rule.touches(prefix)).collect();
    let mut findings: Vec<Finding> = region(&properties.region, signed).into_iter().collect();
    findings.push(versioning(properties, &touching, bucket));
    findings.push(lifecycle(&properties.rules, &touching, bucket));
    findings
}

fn region(region: &BucketProperty<String>, signed: Option<&str>) -> Option<Finding> {
    const WHAT: &str = "region";
    let BucketProperty::Known(region) = region else { return None };
    Some(match signed {
        Some(signed) if signed != region => {
            Finding::warn(WHAT, format!("the bucket is in {region}, requests are signed for {signed}"))
                .cure(format!("AWS_REGION={region}, or ?region={region}"))
        }
        _ => Finding::ok(WHAT, region.as_str()),
    })
}

fn versioning(properties: &BucketProperties, rules: &[&Rule], bucket: &Bucket) -> Finding {
    const WHAT: &str = "versioning";
    let on = match &properties.versioning {
        BucketProperty::Known(Versioning::Suspended) => return Finding::ok(WHAT, "suspended"),
        BucketProperty::Known(Versioning::SoftDelete(seconds)) => return soft_delete(*seconds, bucket),
        BucketProperty::Known(versioning) => *versioning == Versioning::On,
        BucketProperty::Denied => {
            return Finding::ok(WHAT, format!("may not be seen ({})", permission(bucket, "s3:GetBucketVersioning")));
        }
        BucketProperty::Unknown => return Finding::ok(WHAT, "the server does not tell"),
    };
    match (on, rules.iter().any(|rule| rule.ends_old_versions)) {
        (false, _) => Finding::ok(WHAT, "off"),
        (true, true) => Finding::ok(WHAT, "on, and old versions expire"),
        (true, false) => {
            let unseen = if matches!(properties.rules, BucketProperty::Known(_)) { "" } else { " that may be seen" };
            let what = format!(
                "on: deleted objects and old states of groups stay and cost, as no lifecycle rule{unseen} removes them"
            );
            let rule = match bucket.kind {
                Kind::S3 => "a lifecycle rule with NoncurrentVersionExpiration for the bus's prefix",
                Kind::Gcs => "a lifecycle rule that deletes with daysSinceNoncurrentTime and the bus's prefix",
                Kind::Azure => "a management policy that deletes versions below the bus's prefix",
            };
            Finding::warn(WHAT, what).cure(rule)
        }
    }
}

fn soft_delete(seconds: u64, bucket: &Bucket) -> Finding {
    let kept = times::format_duration(Duration::from_secs(seconds));
    let what = format!("soft delete: deleted objects and old states of groups stay and cost for {kept}");
    Finding::warn("versioning", what)
        .cure(format!("gcloud storage buckets update gs://{} --clear-soft-delete", bucket.name))
}

/// The permission to read a setting: S3 has one for each, Google one for all.
fn permission(bucket: &Bucket, s3: &'static str) -> &'static str {
    if bucket.kind == Kind::Gcs { "storage.buckets.get" } else { s3 }
}

fn lifecycle(known: &BucketProperty<Vec<Rule>>, rules: &[&Rule], bucket: &Bucket) -> Finding {
    const WHAT: &str = "lifecycle";
    match (known, bucket.kind) {
        (BucketProperty::Denied, _) => {
            let permission = permission(bucket, "s3:GetLifecycleConfiguration");
            return Finding::ok(WHAT, format!("may not be seen ({permission})"));
        }
        (BucketProperty::Unknown, Kind::Azure) => {
            return Finding::ok(WHAT, "told to the account's owner: az storage account management-policy show");
        }
        (BucketProperty::Unknown, _) => return Finding::ok(WHAT, "the server does not tell"),
        (BucketProperty::Known(_), _) => {}
    }
    let named = |rule: &&&Rule| format!("'{}'", rule.name);
    let ends: Vec<String> = rules.iter().filter(|rule| rule.ends_objects).map(|rule| named(&rule)).collect();
    let moves: Vec<String> = rules.iter().filter(|rule| rule.moves_objects).map(|rule| named(&rule)).collect();
    if !ends.is_empty() {
        let what =
            format!("rule {} deletes what is on the bus: events that wait, groups and their state", ends.join(", "));
        return Finding::warn(WHAT, what).cure([
            text("leave the bus's prefix out of it; "),
            command("prune", "--keep 7d"),
            text(" deletes what is done"),
        ]);
    }
    if !moves.is_empty() {
        let what = format!("rule {} moves what is on the bus to another storage class", moves.join(", "));
        return Finding::warn(WHAT, what).cure("leave the bus's prefix out of it: what is archived cannot be read");
    }
    Finding::ok(WHAT, "no rule deletes what is on the bus")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::colour::Colours;
    use crate::store::object::CredentialInputs;

    fn lines(
        kind: Kind,
        versioning: BucketProperty<Versioning>,
        rules: BucketProperty<Vec<Rule>>,
        region: &str,
    ) -> Vec<String> {
        let bucket = Bucket {
            kind,
            name: "acme".to_owned(),
            prefix: "prod".to_owned(),
            settings: Vec::new(),
            identity: CredentialInputs::default(),
        };
        let properties = BucketProperties { region: BucketProperty::Known(region.to_owned()), versioning, rules };
        let signed = (kind == Kind::S3).then_some("us-east-1");
        judged(&properties, &bucket, signed).iter().map(|finding| finding.text(Colours::NONE)).collect()
    }

    fn rule(prefix: &str) -> Rule {
        Rule { name: "r".to_owned(), prefixes: vec![prefix.to_owned()], ..Rule::default() }
    }

    #[test]
    fn region_versioning_and_lifecycle_are_reported() {
        let s3 = |versioning, rules| {
            lines(Kind::S3, BucketProperty::Known(versioning), BucketProperty::Known(rules), "us-east-1")
        };
        let quiet = s3(Versioning::Off, Vec::new());
        assert!(quiet.iter().all(|line| line.starts_with("ok ")), "{quiet:?}");
        assert!(s3(Versioning::On, Vec::new())[1].starts_with("warn versioning"));
        let ends_old = |prefix| Rule { ends_old_versions: true, ..rule(prefix) };
        let noncurrent = s3(Versioning::On, vec![ends_old("")]);
        assert!(noncurrent[1].starts_with("ok ") && noncurrent[2].starts_with("ok "), "{noncurrent:?}");
        assert!(s3(Versioning::On, vec![ends_old("logs/")])[1].starts_with("warn versioning"));
        let elsewhere = lines(Kind::S3, BucketProperty::Unknown, BucketProperty::Unknown, "eu-west-1");
        assert!(elsewhere[0].contains("AWS_REGION=eu-west-1"), "{elsewhere:?}");
    }

    #[test]
    fn a_lifecycle_rule_that_deletes_bus_objects_is_reported() {
        let s3 = |rule| {
            lines(Kind::S3, BucketProperty::Known(Versioning::Off), BucketProperty::Known(vec![rule]), "us-east-1")
                .remove(2)
        };
        assert!(s3(Rule { ends_objects: true, ..rule("prod/events/") }).starts_with("warn lifecycle"));
        assert!(s3(Rule { ends_objects: true, ..rule("logs/") }).starts_with("ok "));
        assert!(s3(Rule { moves_objects: true, ..rule("") }).contains("storage class"));
    }

    #[test]
    fn each_provider_has_its_own_cures() {
        let google = |versioning| lines(Kind::Gcs, versioning, BucketProperty::Known(Vec::new()), "us-central1");
        assert!(google(BucketProperty::Known(Versioning::Off)).iter().all(|line| line.starts_with("ok ")));
        assert!(google(BucketProperty::Known(Versioning::On))[1].contains("daysSinceNoncurrentTime"));
        let soft = google(BucketProperty::Known(Versioning::SoftDelete(604_800))).remove(1);
        assert!(soft.contains("for 7d") && soft.contains("gs://acme --clear-soft-delete"), "{soft}");
        assert!(google(BucketProperty::Denied)[1].contains("storage.buckets.get"));
        let azure = lines(Kind::Azure, BucketProperty::Known(Versioning::On), BucketProperty::Unknown, "");
        assert!(azure[1].contains("management policy") && azure[2].contains("management-policy show"), "{azure:?}");
    }
}
