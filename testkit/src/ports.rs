//! Finds free TCP ports on 127.0.0.1.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

/// Ports are taken from below Linux's range for outgoing connections (32768 and up), so that no connection of
/// another test can occupy a port while its server restarts.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// Returns a port of 127.0.0.1 on which no process listens. Another process may take the port before the
/// caller binds it.
///
/// # Errors
/// Returns an error if no port is free.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(free_ports::<1>()?[0])
}

/// Returns `N` different free ports.
///
/// # Errors
/// Returns an error if there are fewer free ports.
pub fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    // `RandomState` has random keys, so any hash is a random number. That is enough to keep parallel tests
    // apart.
    let start = u16::try_from(RandomState::new().hash_one(std::process::id()) % u64::from(COUNT))?;
    // The listeners stay open until all ports are found, so that the ports differ.
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for step in 0..COUNT {
        if held.len() == N {
            break;
        }
        let port = FIRST + (start + step) % COUNT;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            ports[held.len()] = port;
            held.push(listener);
        }
    }
    anyhow::ensure!(held.len() == N, "fewer than {N} free ports on 127.0.0.1");
    Ok(ports)
}

/// Returns whether no process listens on this port of 127.0.0.1.
#[must_use]
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_are_free() {
        let ports = free_ports::<4>().unwrap();
        for (index, port) in ports.iter().enumerate() {
            assert!((FIRST..FIRST + COUNT).contains(port));
            assert!(!ports[..index].contains(port));
        }
    }

    #[test]
    fn a_taken_port_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free(listener.local_addr().unwrap().port()));
    }
}
