//! What requests cost, about: at the prices of S3 Standard (us-east-1), in dollars.

use crate::store::Requests;

/// For a million writes or listings. Removals are free.
const WRITE_DOLLARS: f64 = 5.0;
/// For a million reads.
const READ_DOLLARS: f64 = 0.4;

/// The price of requests, in dollars.
#[allow(clippy::cast_precision_loss, reason = "an estimate needs no more than 52 bits")]
pub(super) fn dollars(requests: Requests) -> f64 {
    let writes = requests.puts + requests.lists;
    (writes as f64 * WRITE_DOLLARS + requests.gets as f64 * READ_DOLLARS) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_requests_cost_the_list_price() {
        let million = Requests { puts: 1_000_000, gets: 1_000_000, lists: 1_000_000, deletes: 1_000_000 };
        assert!((dollars(million) - 10.4).abs() < 1e-9);
    }
}
