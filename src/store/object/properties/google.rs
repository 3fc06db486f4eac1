//! What Google Cloud Storage shows of a bucket, in one document (Cloud Storage JSON API, Buckets:
//! the resource).

use object_store::client::HttpRequest;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use serde::Deserialize;

use super::{BucketProperties, BucketProperty, Rule, Versioning};
use crate::store::object::Bucket;

/// The fields of a bucket that matter to a bus.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Resource {
    location: String,
    versioning: Switch,
    lifecycle: Lifecycle,
    soft_delete_policy: SoftDelete,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Switch {
    enabled: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SoftDelete {
    /// A number in a string, as the API writes 64 bits.
    retention_duration_seconds: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Lifecycle {
    rule: Vec<LifecycleRule>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LifecycleRule {
    action: Action,
    condition: LifecycleCondition,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Action {
    r#type: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LifecycleCondition {
    is_live: Option<bool>,
    num_newer_versions: Option<u64>,
    days_since_noncurrent_time: Option<u64>,
    noncurrent_time_before: Option<String>,
    matches_prefix: Vec<String>,
    matches_suffix: Vec<String>,
}

impl LifecycleCondition {
    fn is_of_old_versions(&self) -> bool {
        self.is_live == Some(false)
            || self.num_newer_versions.is_some()
            || self.days_since_noncurrent_time.is_some()
            || self.noncurrent_time_before.is_some()
    }

    /// Whether a rule's suffixes may hold for a bus: all its keys end in one of these ways, except
    /// those of markers.
    fn may_hold_for_a_bus(&self) -> bool {
        let may_end = |suffix: &String| [".json", ".ndjson"].iter().any(|end| end.ends_with(suffix.as_str()));
        self.matches_suffix.is_empty() || self.matches_suffix.iter().any(may_end)
    }
}

impl Bucket {
    pub(super) async fn google_properties(&self) -> BucketProperties {
        let resource = match self.asked_of_google().await {
            Some((200, text)) => serde_json::from_str(&text)
                .map_or(BucketProperty::Unknown, |resource| BucketProperty::Known(read(resource))),
            Some((401 | 403, _)) => BucketProperty::Denied,
            _ => BucketProperty::Unknown,
        };
        match resource {
            BucketProperty::Known(properties) => properties,
            BucketProperty::Denied => BucketProperties {
                region: BucketProperty::Denied,
                versioning: BucketProperty::Denied,
                rules: BucketProperty::Denied,
            },
            BucketProperty::Unknown => BucketProperties {
                region: BucketProperty::Unknown,
                versioning: BucketProperty::Unknown,
                rules: BucketProperty::Unknown,
            },
        }
    }

    async fn asked_of_google(&self) -> Option<(u16, String)> {
        let server = self.endpoint().unwrap_or("https://storage.googleapis.com");
        let mut request = HttpRequest::new(Vec::new().into());
        let fields = "fields=location,versioning,lifecycle,softDeletePolicy";
        let server = server.trim_end_matches('/');
        *request.uri_mut() = format!("{server}/storage/v1/b/{}?{fields}", self.name).parse().ok()?;
        if let Some(token) = self.google_token().await.filter(|token| !token.is_empty()) {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().ok()?);
        }
        self.answer(request).await
    }

    /// Signed as the store signs.
    async fn google_token(&self) -> Option<String> {
        let mut builder = GoogleCloudStorageBuilder::new();
        for (name, value) in &self.settings {
            if let Ok(key) = name.parse::<GoogleConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        let options = self.options().ok()?.with_allow_http(self.plain_http());
        let store = builder.with_bucket_name(&self.name).with_client_options(options).build().ok()?;
        let credential = store.credentials().get_credential().await.ok()?;
        Some(credential.bearer.clone())
    }
}

fn read(resource: Resource) -> BucketProperties {
    let kept = resource.soft_delete_policy.retention_duration_seconds.parse().unwrap_or(0);
    let versioning = match (resource.versioning.enabled, kept) {
        (true, _) => Versioning::On,
        (false, 0) => Versioning::Off,
        (false, seconds) => Versioning::SoftDelete(seconds),
    };
    let rules = resource.lifecycle.rule.into_iter().enumerate();
    let rules = rules
        .filter(|(_, lifecycle_rule)| lifecycle_rule.condition.may_hold_for_a_bus())
        .map(|(at, lifecycle_rule)| rule(at + 1, lifecycle_rule));
    BucketProperties {
        region: BucketProperty::Known(resource.location.to_lowercase()),
        versioning: BucketProperty::Known(versioning),
        rules: BucketProperty::Known(rules.collect()),
    }
}

/// Rules have no names.
fn rule(number: usize, lifecycle_rule: LifecycleRule) -> Rule {
    let (deletes, old) = (lifecycle_rule.action.r#type == "Delete", lifecycle_rule.condition.is_of_old_versions());
    Rule {
        name: number.to_string(),
        prefixes: lifecycle_rule.condition.matches_prefix,
        ends_objects: deletes && !old,
        moves_objects: lifecycle_rule.action.r#type == "SetStorageClass" && !old,
        ends_old_versions: deletes && old,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(text: &str) -> BucketProperties {
        read(serde_json::from_str(text).unwrap())
    }

    fn rules(text: &str) -> Vec<Rule> {
        let BucketProperty::Known(rules) = properties(&format!("{{\"lifecycle\":{{\"rule\":[{text}]}}}}")).rules else {
            panic!()
        };
        rules
    }

    #[test]
    fn versioning_and_soft_delete_are_read() {
        let versioning = |text: &str| properties(text).versioning;
        assert_eq!(versioning("{}"), BucketProperty::Known(Versioning::Off));
        assert_eq!(versioning("{\"versioning\":{\"enabled\":true}}"), BucketProperty::Known(Versioning::On));
        let soft =
            "{\"versioning\":{\"enabled\":false},\"softDeletePolicy\":{\"retentionDurationSeconds\":\"604800\"}}";
        assert_eq!(versioning(soft), BucketProperty::Known(Versioning::SoftDelete(604_800)));
        assert_eq!(
            properties("{\"location\":\"EUROPE-WEST3\"}").region,
            BucketProperty::Known("europe-west3".to_owned())
        );
    }

    #[test]
    fn rules_are_read_as_deletions_and_transitions() {
        let numbered = |rule: Rule| vec![Rule { name: "1".to_owned(), ..rule }];
        let ends = Rule { ends_objects: true, prefixes: vec!["logs/".to_owned()], ..Rule::default() };
        let delete = "{\"action\":{\"type\":\"Delete\"},\"condition\":{\"age\":30,\"matchesPrefix\":[\"logs/\"]}}";
        assert_eq!(rules(delete), numbered(ends));
        let old = "{\"action\":{\"type\":\"Delete\"},\"condition\":{\"daysSinceNoncurrentTime\":3}}";
        assert_eq!(rules(old), numbered(Rule { ends_old_versions: true, ..Rule::default() }));
        let colder =
            "{\"action\":{\"type\":\"SetStorageClass\",\"storageClass\":\"ARCHIVE\"},\"condition\":{\"age\":1}}";
        assert_eq!(rules(colder), numbered(Rule { moves_objects: true, ..Rule::default() }));
        let pictures = "{\"action\":{\"type\":\"Delete\"},\"condition\":{\"age\":1,\"matchesSuffix\":[\".jpg\"]}}";
        assert_eq!(rules(pictures), []);
        assert_eq!(
            rules("{\"action\":{\"type\":\"AbortIncompleteMultipartUpload\"},\"condition\":{\"age\":1}}"),
            numbered(Rule::default())
        );
    }
}
