//! Where somebody comes from, as the bounds count it.

use std::net::{IpAddr, SocketAddr};

use crate::services::Origin;

/// Where `address` is, as bounds tell one from another.
pub(super) fn origin_of(address: SocketAddr) -> Origin {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => Origin(ip.to_ipv6_mapped().octets()),
        IpAddr::V6(ip) => {
            let network = u128::from(ip) >> 64 << 64;
            Origin(network.to_be_bytes())
        }
    }
}

/// The same if its connections and requests are counted: those of this machine are not, for
/// behind a proxy on it there are many, and who is on it has other ways to keep it busy.
pub(super) fn counted_origin(address: SocketAddr) -> Option<Origin> {
    let is_far = !address.ip().to_canonical().is_loopback();
    is_far.then(|| origin_of(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_either_form_and_a_whole_network_count_as_one() {
        let of = |text: &str| origin_of(text.parse().unwrap());
        assert_eq!(of("192.0.2.7:1"), of("[::ffff:192.0.2.7]:2"));
        assert_ne!(of("192.0.2.7:1"), of("192.0.2.8:1"));
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::2:3:4:5]:1"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
        let counted = |text: &str| counted_origin(text.parse().unwrap()).is_some();
        assert!(counted("192.0.2.7:1") && counted("[2001:db8::1]:1"));
        assert!(!counted("127.0.0.1:1") && !counted("[::1]:1") && !counted("[::ffff:127.0.0.1]:1"));
    }
}
