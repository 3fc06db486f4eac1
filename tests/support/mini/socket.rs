//! Ports and connections.

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the ports that the system assigns, so that no process takes this one while the server
/// refuses.
pub fn bound(port: u16) -> TcpListener {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if port != 0 {
        return TcpListener::bind(("127.0.0.1", port)).unwrap();
    }
    loop {
        let next = std::process::id().wrapping_mul(37).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", 20_000 + u16::try_from(next).unwrap())) {
            return listener;
        }
    }
}

/// Whether the client has closed its end, at least for writing.
pub fn has_left(client: &TcpStream) -> bool {
    let _ = client.set_nonblocking(true);
    let left = match client.peek(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    };
    let _ = client.set_nonblocking(false);
    left
}
