//! What S3 shows of a bucket (Amazon S3 API reference: `GetBucketVersioning`,
//! `GetBucketLifecycleConfiguration`, `GetBucketLocation`).

use std::sync::Arc;

use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{CredentialProvider as _, HttpRequest};

use super::{BucketProperties, BucketProperty, Rule, Versioning};
use crate::store::object::Bucket;

impl Bucket {
    pub(super) async fn s3_properties(&self) -> BucketProperties {
        BucketProperties {
            region: self.subresource("location").await.map(|text| region(&text)),
            versioning: self.subresource("versioning").await.map(|text| versioning(&text)),
            rules: self.subresource("lifecycle").await.map(|text| rules(&text)),
        }
    }

    /// The document of a sub-resource; empty where there is none of its kind.
    async fn subresource(&self, name: &str) -> BucketProperty<String> {
        match self.asked_of(name).await {
            Some((200, text)) => BucketProperty::Known(text),
            Some((403, _)) => BucketProperty::Denied,
            Some((404, text)) if text.contains("NoSuchLifecycleConfiguration") => BucketProperty::Known(String::new()),
            _ => BucketProperty::Unknown,
        }
    }

    async fn asked_of(&self, name: &str) -> Option<(u16, String)> {
        let region = self.region();
        let server = self.endpoint().map_or_else(|| format!("https://s3.{region}.amazonaws.com"), str::to_owned);
        let mut request = HttpRequest::new(Vec::new().into());
        *request.uri_mut() = format!("{}/{}?{name}", server.trim_end_matches('/'), self.name).parse().ok()?;
        let credential = self.credential().await?;
        AwsAuthorizer::new(&credential, "s3", region).try_authorize(&mut request, None).ok()?;
        self.answer(request).await
    }

    async fn credential(&self) -> Option<Arc<AwsCredential>> {
        if let Some(credentials) = self.credentials().ok()? {
            return credentials.get_credential().await.ok();
        }
        let get = |name: &str| self.setting(name).map(str::to_owned);
        let (key_id, secret_key) = (get("aws_access_key_id")?, get("aws_secret_access_key")?);
        Some(Arc::new(AwsCredential { key_id, secret_key, token: get("aws_session_token") }))
    }
}

/// The region of a `LocationConstraint`. The first two had others names when they were the only ones.
fn region(text: &str) -> String {
    let element = text.split_once("<LocationConstraint").and_then(|(_, rest)| rest.split_once('>'));
    match element.and_then(|(_, rest)| rest.split('<').next()).map_or("", str::trim) {
        "" => "us-east-1".to_owned(),
        "EU" => "eu-west-1".to_owned(),
        name => name.to_owned(),
    }
}

fn versioning(text: &str) -> Versioning {
    match text {
        on if on.contains("<Status>Enabled") => Versioning::On,
        suspended if suspended.contains("<Status>Suspended") => Versioning::Suspended,
        _ => Versioning::Off,
    }
}

/// The enabled rules of a `LifecycleConfiguration`; those for objects with a tag are not for evbus's, which have none.
fn rules(text: &str) -> Vec<Rule> {
    let rules = text.split("<Rule>").skip(1).filter_map(|rest| rest.split("</Rule>").next());
    rules.filter(|rule| rule.contains("<Status>Enabled") && !rule.contains("<Tag>")).map(rule).collect()
}

fn rule(text: &str) -> Rule {
    let within = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        rest.split_once(&format!("</{tag}>")).map(|(inner, _)| inner)
    };
    let timed = |inner: &str| inner.contains("<Days>") || inner.contains("<Date>");
    Rule {
        name: within("ID").unwrap_or_default().to_owned(),
        prefixes: within("Prefix").into_iter().filter(|prefix| !prefix.is_empty()).map(str::to_owned).collect(),
        ends_objects: within("Expiration").is_some_and(timed),
        moves_objects: within("Transition").is_some_and(timed),
        ends_old_versions: within("NoncurrentVersionExpiration").is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(prefix: &str, what: &str) -> String {
        format!(
            "<Rule><ID>r</ID><TypeFilter><Prefix>{prefix}</Prefix></TypeFilter><Status>Enabled</Status>{what}</Rule>"
        )
    }

    #[test]
    fn regions_are_read_with_their_old_names() {
        for (told, is) in [("", "us-east-1"), ("EU", "eu-west-1"), ("ap-south-1", "ap-south-1")] {
            assert_eq!(region(&format!("<LocationConstraint xmlns=\"x\">{told}</LocationConstraint>")), is);
        }
        assert_eq!(region("<LocationConstraint xmlns=\"x\"/>"), "us-east-1");
    }

    #[test]
    fn versioning_is_on_off_or_suspended() {
        assert_eq!(versioning("<VersioningConfiguration/>"), Versioning::Off);
        assert_eq!(versioning("<VersioningConfiguration><Status>Enabled</Status>"), Versioning::On);
        assert_eq!(versioning("<VersioningConfiguration><Status>Suspended</Status>"), Versioning::Suspended);
    }

    #[test]
    fn rules_are_read_as_deletions_and_transitions() {
        let expires = "<Expiration><Days>30</Days></Expiration>";
        let named = |rule: Rule| Rule { name: "r".to_owned(), ..rule };
        let of = |prefix: &str, what: &str| rules(&one(prefix, what));
        let ends = named(Rule { ends_objects: true, ..Rule::default() });
        assert_eq!(of("", expires), std::slice::from_ref(&ends));
        assert_eq!(of("logs/", expires), [Rule { prefixes: vec!["logs/".to_owned()], ..ends }]);
        assert_eq!(
            of("", "<Transition><Days>9</Days></Transition>"),
            [named(Rule { moves_objects: true, ..Rule::default() })]
        );
        let old = "<NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration>";
        assert_eq!(of("", old), [named(Rule { ends_old_versions: true, ..Rule::default() })]);
        let markers = "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>";
        assert_eq!(of("", markers), [named(Rule::default())]);
    }

    #[test]
    fn rules_that_are_off_or_for_tags_do_not_count() {
        let expires = one("", "<Expiration><Days>30</Days></Expiration>");
        assert_eq!(rules(&expires.replace("Enabled", "Disabled")), []);
        assert_eq!(rules(&expires.replace("<TypeFilter>", "<TypeFilter><Tag>t</Tag>")), []);
        assert_eq!(rules(""), []);
    }
}
