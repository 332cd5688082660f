//! The box's two sockets, at the same port number.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// TCP for HTTP and UDP for QUIC, both bound and not blocking.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) tcp: TcpListener,
    pub(super) udp: UdpSocket,
    pub(super) tcp_address: SocketAddr,
    pub(super) udp_address: SocketAddr,
}

/// Why the box cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody else listens there.
    #[error(
        "{protocol} port {} at {} is taken by another program; stop that one, or choose another \
         port with {flag} ADDRESS:PORT (port 0 takes any free one)",
        address.port(), address.ip()
    )]
    Taken {
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// Where.
        address: SocketAddr,
        /// The option that changes it.
        flag: &'static str,
    },
    /// The system refuses for another reason.
    #[error("cannot listen on {protocol} {address}")]
    Refused {
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

impl Sockets {
    /// Binds both: TCP at `listen`, and UDP at `quic_listen` or, without one, at the very address
    /// that TCP got. With port 0 both get the same free number; it is tried a few times, as a
    /// port that is free for TCP may be taken for UDP. Where there is no IPv6, `[::]` means all
    /// of IPv4.
    pub(super) fn bind(
        listen: SocketAddr,
        quic_listen: Option<SocketAddr>,
    ) -> Result<Self, SocketError> {
        let mut attempts_left = if listen.port() == 0 { ATTEMPTS } else { 1 };
        loop {
            attempts_left -= 1;
            let (tcp, tcp_address) = bind_tcp(listen)?;
            match bind_udp(quic_listen.unwrap_or(tcp_address), quic_listen.is_some()) {
                Ok((udp, udp_address)) => {
                    return Ok(Self { tcp, udp, tcp_address, udp_address });
                }
                Err(SocketError::Taken { .. }) if attempts_left > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Addresses at which others, or at least this machine, can reach HTTP: where it listens, or,
    /// if that is everywhere, the addresses that packets to other networks would leave from.
    pub(super) fn reachable_at(&self) -> Vec<SocketAddr> {
        if !self.tcp_address.ip().is_unspecified() {
            return vec![self.tcp_address];
        }
        let port = self.tcp_address.port();
        let outward =
            [outward_ip("0.0.0.0:0", DOCUMENTATION_V4), outward_ip("[::]:0", DOCUMENTATION_V6)];
        let mut addresses: Vec<_> = outward
            .into_iter()
            .flatten()
            .filter(|ip| self.tcp_address.is_ipv6() || ip.is_ipv4())
            .map(|ip| SocketAddr::new(ip, port))
            .collect();
        if addresses.is_empty() {
            addresses.push((Ipv4Addr::LOCALHOST, port).into());
        }
        addresses
    }
}

/// Addresses that no machine has (RFC 5737, RFC 3849); nothing is sent there.
const DOCUMENTATION_V4: &str = "192.0.2.1:9";
const DOCUMENTATION_V6: &str = "[2001:db8::1]:9";

/// The address that this machine would use towards `to`; nothing if there is no way there.
fn outward_ip(from: &str, to: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// How often two sockets are tried to get one free number.
const ATTEMPTS: u32 = 16;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

fn bind_tcp(address: SocketAddr) -> Result<(TcpListener, SocketAddr), SocketError> {
    let bound = with_ipv4_alone(address, |address| {
        let socket = new_socket(address, Type::STREAM, Protocol::TCP)?;
        // Or a restart would wait for connections that are long over.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    bound.map_err(|source| refused("TCP", address, "--listen", source))
}

fn bind_udp(
    address: SocketAddr,
    address_was_said: bool,
) -> Result<(UdpSocket, SocketAddr), SocketError> {
    let bound = with_ipv4_alone(address, |address| {
        let socket = new_socket(address, Type::DGRAM, Protocol::UDP)?;
        socket.bind(&address.into())?;
        let socket = UdpSocket::from(socket);
        let address = socket.local_addr()?;
        Ok((socket, address))
    });
    let flag = if address_was_said { "--quic-listen" } else { "--listen" };
    bound.map_err(|source| refused("UDP", address, flag, source))
}

fn new_socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Binds at `address`; if that is all of IPv6 and the machine has none, at all of IPv4.
fn with_ipv4_alone<T>(
    address: SocketAddr,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    match bind(address) {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && !is_taken(&error) => {
            let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            // What was asked for is what the message is about.
            bind(all).map_err(|second| if is_taken(&second) { second } else { error })
        }
        bound => bound,
    }
}

fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

fn refused(
    protocol: &'static str,
    address: SocketAddr,
    flag: &'static str,
    source: io::Error,
) -> SocketError {
    if is_taken(&source) {
        SocketError::Taken { protocol, address, flag }
    } else {
        SocketError::Refused { protocol, address, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    #[test]
    fn any_free_port_is_the_same_for_both() {
        let sockets = Sockets::bind(loopback(0), None).unwrap();
        assert_ne!(sockets.tcp_address.port(), 0);
        assert_eq!(sockets.tcp_address, sockets.udp_address);
    }

    #[test]
    fn a_taken_port_is_named_with_the_way_out() {
        let first = Sockets::bind(loopback(0), None).unwrap();
        let taken = first.tcp_address;

        let message = Sockets::bind(taken, None).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("TCP port {} at 127.0.0.1", taken.port())),
            "{message}"
        );
        assert!(message.contains("--listen ADDRESS:PORT"), "{message}");

        let message = Sockets::bind(loopback(0), Some(taken)).unwrap_err().to_string();
        assert!(message.starts_with(&format!("UDP port {}", taken.port())), "{message}");
        assert!(message.contains("--quic-listen"), "{message}");
    }

    #[test]
    fn all_addresses_are_ipv4_too() {
        let sockets = Sockets::bind("[::]:0".parse().unwrap(), None).unwrap();
        let port = sockets.tcp_address.port();
        std::net::TcpStream::connect(loopback(port)).unwrap();
    }

    #[test]
    fn where_all_listen_a_real_address_is_named() {
        let sockets = Sockets::bind("[::]:0".parse().unwrap(), None).unwrap();
        for address in sockets.reachable_at() {
            assert!(!address.ip().is_unspecified(), "{address}");
            std::net::TcpStream::connect(address).unwrap();
        }
        let sockets = Sockets::bind(loopback(0), None).unwrap();
        assert_eq!(sockets.reachable_at(), [sockets.tcp_address]);
    }

    #[test]
    fn an_address_of_another_machine_is_refused_with_its_cause() {
        let error = Sockets::bind("192.0.2.1:0".parse().unwrap(), None).unwrap_err();
        assert!(matches!(error, SocketError::Refused { .. }), "{error}");
    }
}
