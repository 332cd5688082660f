//! Names on the local network, by multicast DNS.
