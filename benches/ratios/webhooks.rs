//! Webhooks: events sent to a server on this machine, beside a loop that only sends.

use std::convert::Infallible;
use std::net::SocketAddr;

use futures_util::StreamExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::{ROUNDS, RatioBench, evbus, median, row, run, timed};

const COUNT: usize = 40_000;
const IN_FLIGHT: usize = 16;

/// The secret of Standard Webhooks' own examples.
const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Starts a server that answers 204 to everything; it ends with the process.
fn serve() -> SocketAddr {
    let (told, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            told.send(listener.local_addr().unwrap()).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let answer = service_fn(async |request: Request<Incoming>| {
                    let mut body = request.into_body();
                    while let Some(Ok(_)) = http_body_frame(&mut body).await {}
                    let mut response = Response::new(String::new());
                    *response.status_mut() = StatusCode::NO_CONTENT;
                    Ok::<_, Infallible>(response)
                });
                tokio::task::spawn_local(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
    });
    address.recv().unwrap()
}

async fn http_body_frame(body: &mut Incoming) -> Option<Result<hyper::body::Frame<bytes::Bytes>, hyper::Error>> {
    std::future::poll_fn(|context| hyper::body::Body::poll_frame(std::pin::Pin::new(body), context)).await
}

fn runtime() -> tokio::runtime::LocalRuntime {
    tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap()
}

/// Sends the same requests, so many at a time, and nothing else.
fn bare(url: &str) {
    runtime().block_on(async {
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let send = |n| {
            let body = format!("{{\"specversion\":\"1.0\",\"id\":\"{n}\",\"source\":\"/bench\",\"type\":\"order.created\",\"data\":{{\"note\":\"{n:0>80}\"}}}}");
            let request = client.post(url).header("content-type", "application/cloudevents+json").body(body);
            async move { assert!(request.send().await.unwrap().status().is_success()) }
        };
        futures_util::stream::iter(0..COUNT).map(send).buffer_unordered(IN_FLIGHT).collect::<Vec<()>>().await;
    });
}

pub fn webhooks(bench: &RatioBench) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = format!("http://{}/hook", serve());
    let (mut floors, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floors.push(COUNT as f64 / timed(|| bare(&url)));
        let bus = bench.bus();
        super::emit_segments(bench, &bus, COUNT);
        let in_flight = IN_FLIGHT.to_string();
        let args =
            ["drain", "-q", "-g", "g", "--from", "earliest", "-j", &in_flight, "--url", &url, "--secret", "env:SECRET"];
        ours.push(COUNT as f64 / timed(|| run(evbus(&bus, &args).env("SECRET", SECRET))));
    }
    let (floor, ours) = (median(floors), median(ours));
    row(
        "webhooks, 16 in flight",
        format!("{floor:.0}/s"),
        format!("{ours:.0}/s"),
        format!("{:.2}", ours / floor),
        ">= 0.7",
    );
}
