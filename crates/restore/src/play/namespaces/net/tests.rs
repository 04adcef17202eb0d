//! Namespaces are furnished for real, each in a thread of its own.

use super::*;
use gelid_sys::namespace;
use gelid_sys::netlink::channel::{CREATE, EXCLUSIVE};
use gelid_sys::netlink::message::{Attributes, messages};
use gelid_sys::netlink::route::{
    GET_LINK, GET_ROUTE, LINK, NEW_LINK, ROUTE, UP, link, link_header,
};
use gelid_sys::proc::ns::Kind as Namespace;

use crate::plan::namespaces::net::{Kind, Peer, Sysctl};

const ID: u32 = 9;

fn planned(index: u32, name: &str, kind: Kind) -> Link {
    Link {
        index,
        name: name.to_owned(),
        kind,
        mtu: 1400,
        flags: UP,
        address: None,
        master: None,
        port: None,
        queue_length: None,
        group: None,
        alias: None,
        senders: None,
        receivers: None,
        names: Vec::new(),
        sysctls: Vec::new(),
        groups: Vec::new(),
        is_undecided: false,
    }
}

/// Furnishes a new namespace and looks at it, in a thread of its own; nothing if that is not allowed.
fn furnished<T: Send + 'static>(
    description: Description,
    options: NetOptions,
    look: impl FnOnce(&Channel, &mut Outside, Result<(), NetError>) -> T + Send + 'static,
) -> Option<T> {
    let thread = std::thread::spawn(move || {
        // What is outside is a namespace of the test as well.
        namespace::leave(Namespace::Net).ok()?;
        let mut outside = Outside::own().unwrap();
        namespace::leave(Namespace::Net).unwrap();
        let own = outside::namespace().unwrap();
        let namespaces = BTreeMap::from([(ID, own)]);
        let others = Others::new(&namespaces, [(ID, &description)].into_iter());
        let mut made = HashSet::new();
        let done = furnish(
            ID,
            &description,
            &others,
            &mut outside,
            &options,
            &mut made,
            false,
        );
        let done = done.and_then(|()| finish(ID, &description, &others, &mut outside, &options));
        let channel = Channel::route().unwrap();
        Some(look(&channel, &mut outside, done))
    });
    thread.join().unwrap()
}

/// Names and masters of all links of a namespace.
fn links(channel: &Channel) -> Vec<(String, Option<u32>)> {
    let all = channel.dump(GET_LINK, &[0; LINK]).unwrap();
    let mut found = Vec::new();
    for message in messages(&all).flatten() {
        let attributes = Attributes(&message.body[LINK..]);
        let name = String::from_utf8_lossy(attributes.text(link::NAME).unwrap());
        found.push((name.into_owned(), attributes.word(link::MASTER)));
    }
    found
}

fn bridge() -> Kind {
    Kind::Of {
        kind: "bridge".to_owned(),
        data: Vec::new(),
        lower: None,
    }
}

#[test]
fn links_and_what_they_need_are_made() {
    let (v0, v1) = (
        Peer::Inside { index: 8, net: ID },
        Peer::Inside { index: 7, net: ID },
    );
    let mut first = planned(7, "v0", Kind::Veth(v0));
    first.master = Some(5);
    let mut address = Builder::new(&[2, 24, 0, 0, 5, 0, 0, 0]);
    address.put(1, &[10, 1, 1, 1]).put(2, &[10, 1, 1, 1]);
    let mut route = Builder::new(&[2, 16, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0]);
    route.put(1, &[10, 9, 0, 0]).put(5, &[10, 1, 1, 2]);
    let forward = Sysctl {
        path: "ipv4/ip_forward".to_owned(),
        value: b"1".to_vec(),
        expected: true,
    };
    let description = Description {
        sysctls: vec![forward],
        links: vec![
            planned(1, "lo", Kind::Loopback),
            planned(5, "br0", bridge()),
            first,
            planned(8, "v1", Kind::Veth(v1)),
        ],
        addresses: vec![address.bytes().to_vec()],
        routes: vec![route.bytes().to_vec()],
        ..Description::default()
    };
    let seen = furnished(description, NetOptions::default(), |channel, _, done| {
        done.unwrap();
        let mut request = [0; ROUTE];
        request[0] = 2;
        let routes = channel.dump(GET_ROUTE, &request).unwrap();
        let gateway = messages(&routes).flatten();
        let gateway = gateway.filter(|route| Attributes(&route.body[ROUTE..]).get(5).is_some());
        let forward = std::fs::read("/proc/sys/net/ipv4/ip_forward").unwrap();
        (links(channel), gateway.count(), forward)
    });
    let Some((mut links, gateways, forward)) = seen else {
        return;
    };
    links.retain(|(name, _)| ["br0", "v0", "v1"].contains(&name.as_str()));
    let expected = [("br0", None), ("v0", Some(5)), ("v1", None)];
    let expected = expected.map(|(name, master)| (name.to_owned(), master));
    assert_eq!(
        (links, gateways, forward),
        (expected.to_vec(), 1, b"1\n".to_vec())
    );
}

#[test]
fn a_failed_restore_leaves_nothing_outside() {
    let keys = ["veth[eth0]:outer0".to_owned()];
    let options = NetOptions::from_external(&keys);
    let mut address = Builder::new(&[2, 24, 0, 0, 77, 0, 0, 0]);
    address.put(2, &[10, 1, 1, 1]);
    let description = |addresses| Description {
        links: vec![planned(3, "eth0", Kind::Veth(Peer::Outside))],
        addresses,
        ..Description::default()
    };
    let names = |channel: &Channel| links(channel).into_iter().map(|(name, _)| name);
    let outer = |outside: &Outside| outside.index("outer0").is_ok();
    let whole = furnished(
        description(Vec::new()),
        options.clone(),
        move |inner, outside, done| {
            done.unwrap();
            (outer(outside), names(inner).any(|name| name == "eth0"))
        },
    );
    assert!(whole.is_none_or(|seen| seen == (true, true)));
    // No link has the index of that address.
    let addresses = vec![address.bytes().to_vec()];
    let failed = furnished(description(addresses), options, move |_, outside, done| {
        let before = outer(outside);
        outside.undo();
        (done.is_err(), before, outer(outside))
    });
    assert!(failed.is_none_or(|seen| seen == (true, true, false)));
}

#[test]
fn links_are_moved_in_and_back() {
    let keys = ["netdev[inner0]:outer1".to_owned()];
    let options = NetOptions::from_external(&keys);
    let thread = std::thread::spawn(move || {
        namespace::leave(Namespace::Net).ok()?;
        let channel = Channel::route().unwrap();
        let (mut info, mut request) = (Builder::default(), Builder::new(&link_header(0, 0, 0)));
        info.text(link::KIND, b"veth");
        request.text(link::NAME, b"outer1").nest(link::INFO, &info);
        channel
            .tell(NEW_LINK, CREATE | EXCLUSIVE, request.bytes())
            .unwrap();
        let mut outside = Outside::own().unwrap();
        namespace::leave(Namespace::Net).unwrap();
        let namespaces = BTreeMap::from([(ID, outside::namespace().unwrap())]);
        let description = Description {
            links: vec![planned(30, "inner0", Kind::Veth(Peer::Outside))],
            ..Description::default()
        };
        let others = Others::new(&namespaces, [(ID, &description)].into_iter());
        let mut made = HashSet::new();
        furnish(
            ID,
            &description,
            &others,
            &mut outside,
            &options,
            &mut made,
            false,
        )
        .unwrap();
        let inside = outside::index(&Channel::route().unwrap(), "inner0");
        let gone = outside.index("outer1").is_err();
        outside.undo();
        Some((inside, gone, outside.index("outer1").is_ok()))
    });
    let seen = thread.join().unwrap();
    assert!(seen.is_none_or(|seen| seen == (Ok(30), true, true)));
}
