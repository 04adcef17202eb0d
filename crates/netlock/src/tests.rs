//! Rules of the running machine.

use super::*;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// A connection, both ends.
fn connection(address: &str) -> (TcpStream, TcpStream, Connection) {
    let listener = TcpListener::bind(address).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let timeout = Some(Duration::from_millis(60));
    server.set_read_timeout(timeout).unwrap();
    let ends = Connection::new(client.local_addr().unwrap(), client.peer_addr().unwrap());
    (client, server, ends)
}

/// Whether something that is written comes at the other end.
fn passes(client: &mut TcpStream, server: &mut TcpStream) -> bool {
    client.write_all(b"x").unwrap();
    let mut byte = [0];
    match server.read(&mut byte) {
        Ok(got) => got == 1,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    }
}

/// Whether this machine has what a method needs, and allows it.
fn works(method: Method) -> bool {
    let (_, _, ends) = connection("127.0.0.1:0");
    match Lock::set(method, "gelid-probe", &[ends]) {
        Ok(_) => true,
        Err(error) => {
            println!("skipped: {error}");
            false
        }
    }
}

fn lock_holds(method: Method, address: &str, run: &str) {
    let (mut client, mut server, ends) = connection(address);
    let (mut other, mut other_server, _) = connection(address);
    assert!(passes(&mut client, &mut server));
    let lock = Lock::set(method, run, &[ends]).unwrap();
    assert!(!passes(&mut client, &mut server));
    assert!(
        passes(&mut other, &mut other_server),
        "others are not concerned"
    );
    drop(lock);
    // What was held back comes when it is sent again.
    server
        .set_read_timeout(Some(Duration::from_secs(9)))
        .unwrap();
    let mut byte = [0];
    server.read_exact(&mut byte).unwrap();

    Lock::set(method, run, &[ends]).unwrap().keep().unwrap();
    server
        .set_read_timeout(Some(Duration::from_millis(60)))
        .unwrap();
    assert!(!passes(&mut client, &mut server), "it was kept");
    unlock(method, run, &[ends]).unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(9)))
        .unwrap();
    server.read_exact(&mut byte).unwrap();
    // Once more does no harm.
    unlock(method, run, &[ends]).unwrap();
}

#[test]
fn iptables_keeps_packets_away() {
    if works(Method::Iptables) {
        lock_holds(Method::Iptables, "127.0.0.1:0", "gelid-a");
        lock_holds(Method::Iptables, "[::1]:0", "gelid-b");
    }
}

#[test]
fn nftables_keeps_packets_away() {
    if works(Method::Nftables) {
        lock_holds(Method::Nftables, "127.0.0.1:0", "gelid-c");
        lock_holds(Method::Nftables, "[::1]:0", "gelid-d");
    }
}

#[test]
fn a_rule_that_is_gone_keeps_no_other() {
    if !works(Method::Iptables) {
        return;
    }
    let (_a, _b, first) = connection("127.0.0.1:0");
    let (mut client, mut server, second) = connection("127.0.0.1:0");
    Lock::set(Method::Iptables, "", &[second])
        .unwrap()
        .keep()
        .unwrap();
    assert!(!passes(&mut client, &mut server));
    unlock(Method::Iptables, "", &[first, second]).unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(9)))
        .unwrap();
    let mut byte = [0];
    server.read_exact(&mut byte).unwrap();
}

#[test]
fn methods_have_numbers() {
    for method in [Method::Iptables, Method::Nftables, Method::Skip] {
        assert_eq!(Method::numbered(Some(method.number())), Some(method));
    }
    assert_eq!(Method::numbered(None), Some(Method::Iptables));
    assert_eq!(Method::numbered(Some(3)), None);
}
