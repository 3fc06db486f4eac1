//! The probe on real servers: a bus is made only where the protocol holds.

use evbus::clock::SystemClock;
use evbus::store::object::{Bucket, BucketStore, Kind};
use evbus::store::probe::{ProbeFinding, Property, probe};

use crate::mini::{Mini, MiniOptions, ServerMode};
use crate::{azurite, block_on, google, of_settings, s3, without_etags};

fn probed(bucket: &Bucket) -> Vec<ProbeFinding> {
    block_on(probe(&BucketStore::connect(bucket).unwrap(), &SystemClock))
}

fn flaws(server: &s3::S3Server) -> Vec<(Property, String)> {
    flaws_of(&server.bucket("probed"))
}

fn flaws_of(bucket: &Bucket) -> Vec<(Property, String)> {
    let findings = probed(bucket).into_iter();
    findings.filter_map(|finding| finding.outcome.err().map(|why| (finding.property, why))).collect()
}

fn warned_of(bucket: &Bucket) -> Vec<Property> {
    let findings = probed(bucket).into_iter();
    findings.filter(|finding| finding.warning.is_some()).map(|finding| finding.property).collect()
}

#[test]
fn seaweedfs_passes_the_probe() {
    assert_eq!(flaws(s3::seaweedfs()), []);
}

#[test]
fn ministack_passes_the_probe() {
    assert_eq!(flaws(s3::ministack()), []);
}

#[test]
fn a_server_that_ignores_conditions_fails_the_probe() {
    let flaws = flaws(s3::rclone());
    assert!(flaws.iter().any(|(property, why)| *property == Property::Create && why.contains("both won")), "{flaws:?}");
    assert!(flaws.iter().any(|(property, _)| *property == Property::Swap), "{flaws:?}");
}

#[test]
fn servers_that_list_without_versions_pass_the_probe() {
    for bucket in [google("probed"), without_etags("probed"), azurite::azurite().bucket("probed")] {
        assert_eq!(flaws_of(&bucket), [], "{bucket:?}");
    }
}

/// A regression: the store drops the keys up to the start of a listing, which hid that the server
/// does not.
#[test]
fn the_probe_warns_of_a_server_that_ignores_start_after() {
    let mini = Mini::start(MiniOptions::default());
    let keys = s3::CREDENTIALS.map(|(name, value)| (name, value.to_owned()));
    let bucket = of_settings(Kind::S3, "p", keys.into_iter().chain([("aws_endpoint_url_s3", mini.endpoint())]));
    assert_eq!(warned_of(&bucket), []);
    mini.behave(&[ServerMode::IgnoreStartAfter]);
    assert_eq!(warned_of(&bucket), [Property::StartAfter]);
    for good in [s3::seaweedfs().bucket("start"), s3::ministack().bucket("start"), google("start")] {
        assert_eq!(warned_of(&good), [], "{good:?}");
    }
    assert_eq!(warned_of(&azurite::azurite().bucket("start")), [Property::StartAfter]);
}
