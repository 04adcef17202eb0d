//! Images of a network namespace, sound and hostile.

use super::*;
use gelid_image::Staging;
use gelid_image::messages::{GelidNetDeviceEntry, GelidNetnsEntry, GelidSysctlEntry, NdType};
use gelid_sys::netlink::message::Builder;

const ID: u32 = 9;

fn lo() -> NetDeviceEntry {
    NetDeviceEntry {
        r#type: NdType::Loopback.into(),
        ifindex: 1,
        mtu: 65536,
        flags: 0x49,
        name: "lo".to_owned(),
        address: Some(vec![0; 6]),
        ..NetDeviceEntry::default()
    }
}

fn other(name: &str, index: u32, kind: &str, lower: Option<u32>) -> NetDeviceEntry {
    NetDeviceEntry {
        r#type: NdType::Extlink.into(),
        ifindex: index,
        mtu: 1500,
        name: name.to_owned(),
        gelid: Some(GelidNetDeviceEntry {
            kind: Some(kind.to_owned()),
            lower,
            ..GelidNetDeviceEntry::default()
        }),
        ..NetDeviceEntry::default()
    }
}

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = (16 + body.len() as u32).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.resize(16, 0);
    bytes.extend_from_slice(body);
    bytes
}

/// Reads a namespace that these make up.
fn read(links: &[NetDeviceEntry], raw: &[(ImageKind, Vec<u8>)]) -> Result<Description, PlanError> {
    let home = tempfile::tempdir().unwrap();
    let dir = Dir::open(home.path()).unwrap();
    let staging = Staging::new(&dir).unwrap();
    staging
        .put(ImageKind::Netns, ID, &NetnsEntry::default())
        .unwrap();
    let mut writer = staging.writer(ImageKind::Netdev, ID).unwrap();
    writer.touch().unwrap();
    for link in links {
        writer.push(link).unwrap();
    }
    writer.finish().unwrap();
    for (kind, bytes) in raw {
        let mut writer = staging.writer(*kind, ID).unwrap();
        writer.push_payload(bytes).unwrap();
        writer.finish().unwrap();
    }
    staging.commit().unwrap();
    match Net::read(&dir, ID, true, &NetOptions::default())?.contents {
        Contents::Described(description) => Ok(*description),
        other => panic!("{other:?}"),
    }
}

#[test]
fn links_come_behind_those_below_them() {
    let links = [
        lo(),
        other("v", 2, "vlan", Some(5)),
        other("d", 5, "dummy", None),
    ];
    let read = read(&links, &[]).unwrap();
    let names: Vec<_> = read.links.iter().map(|link| link.name.as_str()).collect();
    assert_eq!(names, ["lo", "d", "v"]);
    assert_eq!(read.links[0].address, None);
}

#[test]
fn links_that_make_no_sense_are_refused() {
    let circle = [
        other("a", 2, "vlan", Some(3)),
        other("b", 3, "vlan", Some(2)),
    ];
    assert!(read(&circle, &[]).is_err());
    assert!(read(&[other("a", 2, "vlan", Some(3))], &[]).is_err());
    assert!(read(&[lo(), other("lo", 3, "dummy", None)], &[]).is_err());
    for (name, index, kind) in [
        ("", 2, "dummy"),
        ("a/b", 2, "dummy"),
        ("..", 2, "dummy"),
        ("sixteen-letters!", 2, "dummy"),
        ("a", 0, "dummy"),
        ("a", 1, "dummy"),
        ("a", u32::MAX, "dummy"),
        ("a", 2, "veth"),
        ("a", 2, ""),
    ] {
        assert!(
            read(&[other(name, index, kind, None)], &[]).is_err(),
            "{name} {kind}"
        );
    }
    let mut damaged = other("a", 2, "dummy", None);
    damaged.gelid.as_mut().unwrap().data = Some(vec![9, 0, 1, 0]);
    assert!(read(&[damaged], &[]).is_err());
    let mut odd = other("a", 2, "dummy", None);
    odd.gelid.as_mut().unwrap().sysctls = vec![GelidSysctlEntry {
        name: "ipv4/conf/../all/forwarding".to_owned(),
        value: b"1".to_vec(),
    }];
    assert!(read(&[odd], &[]).is_err());
    let mut far = lo();
    far.ifindex = 7;
    assert!(read(&[far], &[]).is_err());
}

#[test]
fn messages_are_taken_apart() {
    let body = Builder::new(&[2, 8, 0, 0, 1, 0, 0, 0]);
    let mut body = body;
    body.put(1, &[127, 0, 0, 1]);
    let image = |bytes: &[u8]| [&MAGIC_ADDRESS.to_ne_bytes(), bytes].concat();
    let sound = message(NEW_ADDRESS, body.bytes());
    let raw = |bytes: Vec<u8>| [(ImageKind::Ifaddr, bytes)];
    let found = read(&[lo()], &raw(image(&sound))).unwrap();
    assert_eq!(found.addresses, [body.bytes()]);
    for wrong in [
        image(&message(NEW_ROUTE, body.bytes())),
        image(&message(NEW_ADDRESS, &[2; 7])),
        image(&sound[..20]),
        [&MAGIC_RULE.to_ne_bytes(), &sound[..]].concat(),
    ] {
        assert!(read(&[lo()], &raw(wrong)).is_err());
    }
    body.word(OF_NAMESPACE, 1);
    let elsewhere = image(&message(NEW_ADDRESS, body.bytes()));
    assert!(read(&[lo()], &raw(elsewhere)).is_err());
}

#[test]
fn rules_name_no_files() {
    let with = |kind, text: &str| read(&[lo()], &[(kind, text.as_bytes().to_vec())]);
    assert!(with(ImageKind::Nftables, "table ip x {\n}\n").is_ok());
    for text in [
        "include \"/etc/shadow\"",
        "table ip x {\n} ; include \"x\"",
        "a\0",
    ] {
        assert!(with(ImageKind::Nftables, text).is_err(), "{text}");
    }
}

#[test]
fn a_namespace_from_outside_has_a_key() {
    let home = tempfile::tempdir().unwrap();
    let dir = Dir::open(home.path()).unwrap();
    let staging = Staging::new(&dir).unwrap();
    let entry = NetnsEntry {
        ext_key: Some("extRootNetNS".to_owned()),
        ..NetnsEntry::default()
    };
    staging.put(ImageKind::Netns, ID, &entry).unwrap();
    staging.commit().unwrap();
    let read = |options: &NetOptions| Net::read(&dir, ID, true, options).unwrap().contents;
    let empty = NetOptions {
        empty: true,
        ..NetOptions::default()
    };
    assert!(matches!(read(&empty), Contents::Given(Given::Key(key)) if key == "extRootNetNS"));
    let staging = Staging::new(&dir).unwrap();
    let entry = NetnsEntry {
        gelid: Some(GelidNetnsEntry {
            loopback_up: Some(true),
            ..GelidNetnsEntry::default()
        }),
        ..NetnsEntry::default()
    };
    staging.put(ImageKind::Netns, ID, &entry).unwrap();
    staging.commit().unwrap();
    assert!(matches!(read(&empty), Contents::Empty { loopback: true }));
    let joined = NetOptions {
        join: Some("/run/netns/x".into()),
        ..NetOptions::default()
    };
    assert!(matches!(read(&joined), Contents::Given(Given::Path(_))));
}
