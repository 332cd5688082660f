//! The QUIC protocol as messages and pure state machines: no socket, no clock; time is an argument.
