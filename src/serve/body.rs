//! The body of a request, within limits: its size, the time it takes, and the room for all of them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use crate::clock::{Clock, SystemClock};

/// How long a body may take, and how many bytes of it must have come for each further second.
const TIME: Duration = Duration::from_secs(30);
const BYTES_A_SECOND: u64 = 64 << 10;

/// A body, and the room that it takes until its request is answered.
pub(super) struct BodyInRoom {
    pub bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// Reads a body of at most `most` bytes.
pub(super) async fn read(
    body: Body,
    headers: &HeaderMap,
    most: usize,
    room: &Arc<Semaphore>,
) -> Result<BodyInRoom, Problem> {
    let is_plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(header::CONTENT_ENCODING).iter().all(is_plain) {
        return Err(Problem::unsupported("the body is encoded (send it without Content-Encoding)"));
    }
    let too_large = || Problem::too_large(format!("the body is over the limit of {most} bytes"));
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > most) {
        return Err(too_large());
    }
    let take = |bytes: usize| {
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        Arc::clone(room).try_acquire_many_owned(kib).map_err(|_| Problem::too_many())
    };
    // As the bytes come: what is only announced takes no room from others.
    let mut taken = take(0)?;
    let mut room_bytes = 0;
    let begun = SystemClock.elapsed();
    let mut chunks = body.into_data_stream();
    let mut whole: Option<Bytes> = None;
    let mut gathered = BytesMut::new();
    let mut read = 0;
    loop {
        let until = begun + TIME + Duration::from_secs(read as u64 / BYTES_A_SECOND);
        let left = until.saturating_sub(SystemClock.elapsed());
        let Ok(chunk) = tokio::time::timeout(left, chunks.next()).await else { return Err(Problem::too_slow()) };
        let Some(chunk) = chunk else { break };
        let chunk = chunk.map_err(|_| Problem::bad_request("the body is cut off"))?;
        read += chunk.len();
        if read > most {
            return Err(too_large());
        }
        if read > room_bytes {
            taken.merge(take(read - room_bytes)?);
            room_bytes += (read - room_bytes).next_multiple_of(1 << 10);
        }
        // Most bodies are one chunk.
        match whole.take() {
            None if gathered.is_empty() => whole = Some(chunk),
            first => {
                gathered.extend(first);
                gathered.extend_from_slice(&chunk);
            }
        }
    }
    let bytes = whole.unwrap_or_else(|| gathered.freeze());
    Ok(BodyInRoom { bytes, _room: taken })
}
