//! Datagram sockets that are connected with others than their peers.
//!
//! `unix-star`: many send to one. `unix-chain`: each sends to the next.

use crate::Entry;
use crate::protocol::{Check, Guest, same};
use crate::unix::{now, pair, say, socket, talk};
use crate::unix_names::{peer, shown, unique};
use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, SocketType, bind, connect, connect_unspec, sendto};
use std::os::fd::OwnedFd;

pub(crate) const GUESTS: &[Entry] = &[Entry("unix-star", star), Entry("unix-chain", chain)];

fn star(guest: &Guest) -> Check {
    let centre = socket(SocketType::DGRAM)?;
    let address = SocketAddrUnix::new(guest.path("centre"))?;
    bind(&centre, &address)?;
    let mut senders = Vec::new();
    for index in 0..5 {
        let sender = socket(SocketType::DGRAM)?;
        let own = SocketAddrUnix::new_abstract_name(unique(&format!("s{index}")).as_bytes())?;
        bind(&sender, &own)?;
        connect(&sender, &address)?;
        say(&sender, &format!("from {index}"))?;
        senders.push((sender, own));
    }
    // One that was connected and is not any more.
    let (left, stayed) = pair(SocketType::DGRAM)?;
    connect_unspec(&left)?;
    drop(stayed);
    guest.hold()?;
    for index in 0..5 {
        same!("message", now(&centre), Ok(format!("from {index}")));
    }
    for (sender, own) in &senders {
        same!("peer", peer(sender)?, shown(&address));
        talk("afterwards", sender, &centre)?;
        sendto(&centre, b"answer", rustix::net::SendFlags::empty(), own)?;
        same!("answer", now(sender), Ok("answer".to_owned()));
    }
    same!("one that has left", say(&left, "x"), Err(Errno::NOTCONN));
    Ok(())
}

fn chain(guest: &Guest) -> Check {
    // A chain: each is connected to the next, the last to itself.
    let mut chain: Vec<OwnedFd> = Vec::new();
    for index in 0..4 {
        let link = socket(SocketType::DGRAM)?;
        let own = SocketAddrUnix::new(guest.path(&format!("link-{index}")))?;
        bind(&link, &own)?;
        chain.push(link);
    }
    for (index, link) in chain.iter().enumerate() {
        let next = SocketAddrUnix::new(guest.path(&format!("link-{}", (index + 1).min(3))))?;
        connect(link, &next)?;
        say(link, &format!("link {index}"))?;
    }
    // Two who are connected with each other, and one who was there before.
    let [one, other, third] = ["one", "other", "third"].map(|word| -> Check<_> {
        let socket = socket(SocketType::DGRAM)?;
        let own = SocketAddrUnix::new_abstract_name(unique(word).as_bytes())?;
        bind(&socket, &own)?;
        Ok((socket, own))
    });
    let ((one, its_name), (other, other_name), (third, _)) = (one?, other?, third?);
    connect(&third, &its_name)?;
    connect(&one, &other_name)?;
    connect(&other, &its_name)?;
    say(&one, "to the other")?;
    guest.hold()?;
    for (index, want) in [(1, "link 0"), (2, "link 1"), (3, "link 2"), (3, "link 3")] {
        same!("chain", now(&chain[index]), Ok(want.to_owned()));
    }
    // Who is connected hears nobody else.
    for link in &chain[..3] {
        same!("along the chain", say(link, "x"), Err(Errno::PERM));
    }
    talk("to itself", &chain[3], &chain[3])?;
    same!("the other", now(&other), Ok("to the other".to_owned()));
    talk("back", &other, &one)?;
    same!("peer of the third", peer(&third)?, shown(&its_name));
    same!("the third", say(&third, "x"), Err(Errno::PERM));
    Ok(())
}
