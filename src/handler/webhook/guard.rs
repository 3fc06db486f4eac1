//! Addresses to which no webhook goes: those of this link and of a cloud's metadata service, which
//! give credentials to whoever asks, and what the watcher's `deny` adds.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// A range of addresses: those that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// How many bits; at most 32 or 128.
    bits: u32,
}

/// Refused whatever the settings say: link-local addresses (RFC 3927, RFC 4291), and where clouds have
/// their metadata services.
const METADATA: [Network; 10] = [
    v4([169, 254, 0, 0], 16),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    // Amazon: the machine's, containers', and those of pods.
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32),
    // Google.
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),
    // Azure's host, Alibaba, Oracle.
    v4([168, 63, 129, 16], 32),
    v4([100, 100, 100, 200], 32),
    v4([192, 0, 0, 192], 32),
    // Oracle's, Akamai's and Scaleway's, by IPv6.
    v6([0xfd00, 0xc1, 0, 0, 0, 0, 0, 0], 64),
    v6([0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 0], 48),
    v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128),
];

/// What `deny = ["private"]` means: RFC 1918, RFC 4193, RFC 6598.
const PRIVATE: [Network; 5] = [
    v4([10, 0, 0, 0], 8),
    v4([172, 16, 0, 0], 12),
    v4([192, 168, 0, 0], 16),
    v4([100, 64, 0, 0], 10),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
];

/// What `deny = ["loopback"]` means; the address of no host is this one's, too.
const LOOPBACK: [Network; 4] =
    [v4([127, 0, 0, 0], 8), v4([0, 0, 0, 0], 8), v6([0, 0, 0, 0, 0, 0, 0, 1], 128), v6([0, 0, 0, 0, 0, 0, 0, 0], 128)];

const fn v4([a, b, c, d]: [u8; 4], bits: u32) -> Network {
    Network { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits }
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], bits: u32) -> Network {
    Network { address: IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)), bits }
}

/// An entry of `deny` that is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is no range of addresses: \"private\", \"loopback\", or one such as \"10.0.0.0/8\"")]
pub struct NetworkError;

impl Network {
    /// The ranges of one entry of `deny`: `private`, `loopback`, an address, or an address and the number
    /// of bits that count (RFC 4632).
    ///
    /// # Errors
    /// None of these.
    pub fn parse_entry(text: &str) -> Result<Vec<Self>, NetworkError> {
        match text {
            "private" => Ok(PRIVATE.to_vec()),
            "loopback" => Ok(LOOPBACK.to_vec()),
            _ => text.parse().map(|network| vec![network]),
        }
    }

    fn includes(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| NetworkError))?;
        if bits > most { Err(NetworkError) } else { Ok(Self { address, bits }) }
    }
}

/// Tells which addresses may be connected to.
#[derive(Debug, Clone, Default)]
pub(super) struct Guard {
    denied: Vec<Network>,
    /// The host of the proxy, which may be among the denied ones.
    proxy: Option<String>,
}

/// An address that is refused.
#[derive(Debug)]
pub(super) struct Refused {
    address: IpAddr,
    by_setting: bool,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = if self.by_setting { "in 'deny'" } else { "a link-local or metadata address" };
        write!(f, "{} is {why}: no webhook goes there", self.address)
    }
}

impl Error for Refused {}

impl Guard {
    pub fn new(denied: &[Network]) -> Self {
        Self { denied: denied.to_vec(), proxy: None }
    }

    /// Lets requests go by way of a proxy: what is denied is denied to the receiver.
    pub fn with_proxy(self, host: &str) -> Self {
        Self { proxy: Some(host.to_owned()), ..self }
    }

    /// Passes an address, or says why not.
    pub fn check(&self, address: IpAddr) -> Result<(), Refused> {
        for form in forms(address) {
            if METADATA.iter().any(|network| network.includes(form)) {
                return Err(Refused { address, by_setting: false });
            }
            if self.denied.iter().any(|network| network.includes(form)) {
                return Err(Refused { address, by_setting: true });
            }
        }
        Ok(())
    }

    /// The addresses of a host that may be connected to; an error if it has addresses, and all of
    /// them are refused.
    async fn resolve_host(self, host: String) -> Result<Addrs, Box<dyn Error + Send + Sync>> {
        let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
        let mut allowed = Vec::new();
        let mut refused = None;
        let guard = if self.proxy.as_deref() == Some(&*host) { Self::default() } else { self };
        for address in found {
            match guard.check(address.ip()) {
                Ok(()) => allowed.push(address),
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(refused) if allowed.is_empty() => Err(refused.into()),
            _ => Ok(Box::new(allowed.into_iter())),
        }
    }
}

/// Looks up hosts as the system does, and leaves out what is refused: what was checked is what is
/// connected to.
impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(self.clone().resolve_host(name.as_str().to_owned()))
    }
}

/// An address, and the IPv4 addresses that an IPv6 address may stand for: mapped and compatible (RFC 4291
/// § 2.5.5), translated (RFC 2765, NAT64: RFC 6052, RFC 8215), 6to4 (RFC 3056), Teredo (RFC 4380).
fn forms(address: IpAddr) -> Vec<IpAddr> {
    let mut forms = vec![address];
    let IpAddr::V6(v6) = address else { return forms };
    let segments = v6.segments();
    let embedded = |high: u16, low: u16| {
        let [[a, b], [c, d]] = [high, low].map(u16::to_be_bytes);
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    let last = embedded(segments[6], segments[7]);
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0..=1] => {}
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => {
            forms.push(last);
        }
        // The network chooses how long its prefix is.
        [0x64, 0xff9b, 1, ..] => {
            let octets = v6.octets();
            let at = |places: [usize; 4]| IpAddr::V4(places.map(|place| octets[place]).into());
            forms.extend([at([6, 7, 9, 10]), at([7, 9, 10, 11]), at([9, 10, 11, 12]), last]);
        }
        [0x2002, high, low, ..] => forms.push(embedded(high, low)),
        [0x2001, 0, ..] => forms.push(embedded(!segments[6], !segments[7])),
        _ => {}
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(guard: &Guard, address: &str) -> bool {
        guard.check(address.parse().unwrap()).is_err()
    }

    #[test]
    fn link_local_and_metadata_addresses_are_refused_in_every_form() {
        let guard = Guard::default();
        for address in [
            "169.254.169.254",
            "169.254.0.0",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1:2:3:4:169.254.169.254",
            // Prefixes of 48, 56 and 64 bits.
            "64:ff9b:1:a9fe:a9:fe00::",
            "64:ff9b:1:a9:fe:a9fe::",
            "64:ff9b:1:0:a9:fea9:fe00::",
            "::ffff:0:169.254.169.254",
            "2002:a9fe:a9fe::1",
            // Teredo has the client's address inverted.
            "2001:0:1:2:3:4:5601:5601",
        ] {
            assert!(refused(&guard, address), "{address}");
        }
        for address in [
            "169.253.255.255",
            "169.255.0.0",
            "127.0.0.1",
            "10.0.0.1",
            "192.168.1.1",
            "8.8.8.8",
            "::1",
            "::",
            "fec0::1",
            "fd00:ec3::254",
            "fd00:42::41",
            "2001:db8::169.254.169.254",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ] {
            assert!(!refused(&guard, address), "{address}");
        }
    }

    #[test]
    fn what_is_denied_is_refused() {
        let guard = |entries: &[&str]| {
            let networks = entries.iter().map(|entry| Network::parse_entry(entry).unwrap());
            Guard::new(&networks.collect::<Vec<_>>().concat())
        };
        for (entry, inside, outside) in [
            ("private", "10.1.2.3", "11.0.0.0"),
            ("private", "172.31.255.255", "172.32.0.0"),
            ("private", "192.168.0.1", "192.169.0.1"),
            ("private", "100.127.0.1", "100.128.0.1"),
            ("private", "fdff::1", "fe00::1"),
            ("private", "::ffff:10.0.0.1", "::ffff:127.0.0.1"),
            ("loopback", "127.9.9.9", "128.0.0.1"),
            ("loopback", "::1", "2001:db8::1"),
            ("loopback", "0.0.0.0", "1.0.0.0"),
            ("8.8.8.0/24", "64:ff9b::8.8.8.8", "8.8.9.8"),
            ("8.8.8.8", "8.8.8.8", "8.8.8.9"),
            ("0.0.0.0/0", "1.2.3.4", "2600::1"),
            ("::/0", "2600::1", "1.2.3.4"),
        ] {
            assert!(refused(&guard(&[entry]), inside), "{entry} {inside}");
            assert!(!refused(&guard(&[entry]), outside), "{entry} {outside}");
        }
    }

    #[test]
    fn other_entries_are_errors() {
        for entry in ["", "privat", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/-1", "example.org"] {
            assert!(Network::parse_entry(entry).is_err(), "{entry}");
        }
    }
}
