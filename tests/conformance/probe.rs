//! What the probe says of real servers: a bus is made only where the protocol holds.

use evbus::clock::SystemClock;
use evbus::store::object::BucketStore;
use evbus::store::probe::{Property, probe};

use crate::{block_on, s3};

fn flaws(server: &s3::Server) -> Vec<(Property, String)> {
    let store = BucketStore::connect(&server.bucket("probed")).unwrap();
    let findings = block_on(probe(&store, &SystemClock));
    findings.into_iter().filter_map(|finding| finding.outcome.err().map(|why| (finding.property, why))).collect()
}

#[test]
fn seaweedfs_is_good_enough() {
    assert_eq!(flaws(s3::seaweedfs()), []);
}

#[test]
fn ministack_is_good_enough() {
    assert_eq!(flaws(s3::ministack()), []);
}

#[test]
fn a_server_that_ignores_conditions_is_found_out() {
    let flaws = flaws(s3::rclone());
    assert!(flaws.iter().any(|(property, why)| *property == Property::Create && why.contains("both won")), "{flaws:?}");
    assert!(flaws.iter().any(|(property, _)| *property == Property::Swap), "{flaws:?}");
}
