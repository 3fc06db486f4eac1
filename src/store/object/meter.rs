//! Counts the requests that go out, and reads the store's clock off the answers.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::fmt::rfc2822;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

use crate::store::Requests;

/// Counts of what has gone over one connection.
#[derive(Debug)]
pub(super) struct Meter {
    puts: AtomicU64,
    gets: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    /// The `Date` of the newest answer to a write, in microseconds since the Unix epoch.
    written: AtomicI64,
    /// The region that the bucket is in, as an answer to a request for another one has said.
    region: Mutex<Option<String>>,
}

impl Default for Meter {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Self {
            puts: zero(),
            gets: zero(),
            lists: zero(),
            deletes: zero(),
            written: AtomicI64::new(i64::MIN),
            region: Mutex::default(),
        }
    }
}

impl Meter {
    pub(super) fn requests(&self) -> Requests {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Requests { puts: of(&self.puts), gets: of(&self.gets), lists: of(&self.lists), deletes: of(&self.deletes) }
    }

    pub(super) fn last_write_micros(&self) -> Option<i64> {
        Some(self.written.load(Ordering::Relaxed)).filter(|micros| *micros != i64::MIN)
    }

    /// The region that the bucket is in, if it is not the one that was asked.
    pub(super) fn other_region(&self) -> Option<String> {
        self.region.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn note_region(&self, region: Option<&str>) {
        if let Some(region) = region {
            *self.region.lock().unwrap_or_else(PoisonError::into_inner) = Some(region.to_owned());
        }
    }

    fn count(&self, request: &HttpRequest) {
        let listing =
            request.uri().query().is_some_and(|query| query.contains("list-type=") || query.contains("prefix="));
        let count = match request.method().as_str() {
            "PUT" => &self.puts,
            "GET" | "HEAD" if listing => &self.lists,
            "GET" | "HEAD" => &self.gets,
            // A POST removes many objects at once.
            _ => &self.deletes,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn read_clock(&self, response: &HttpResponse) {
        let date = response.headers().get("date").and_then(|date| date.to_str().ok());
        let Some(time) = date.and_then(|date| rfc2822::parse(date).ok()) else { return };
        self.written.fetch_max(time.timestamp().as_microsecond(), Ordering::Relaxed);
    }
}

/// Connects as the crate does, with a meter in between.
#[derive(Debug)]
pub(super) struct Metered {
    pub(super) meter: Arc<Meter>,
}

impl HttpConnector for Metered {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(MeteredHttp { client, meter: Arc::clone(&self.meter) }))
    }
}

#[derive(Debug)]
struct MeteredHttp {
    client: HttpClient,
    meter: Arc<Meter>,
}

type HttpFuture<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

impl HttpService for MeteredHttp {
    fn call<'line, 'answer>(&'line self, request: HttpRequest) -> HttpFuture<'answer>
    where
        'line: 'answer,
        Self: 'answer,
    {
        Box::pin(async move {
            self.meter.count(&request);
            let write = request.method() == "PUT";
            let response = self.client.execute(request).await?;
            if matches!(response.status().as_u16(), 300..=403) {
                self.meter
                    .note_region(response.headers().get("x-amz-bucket-region").and_then(|name| name.to_str().ok()));
            }
            if write {
                self.meter.read_clock(&response);
            }
            Ok(response)
        })
    }
}
