//! What a network namespace is to be like. Section 21 of the format.

mod link;
mod options;
mod sysctl;

use std::path::{Path, PathBuf};

use gelid_image::messages::{NetDeviceEntry, NetnsEntry, NetnsId};
use gelid_image::{Dir, ImageKind};
use gelid_sys::netlink::message::{Attributes, messages, unpadded, word};
use gelid_sys::netlink::route::{
    ADDRESS, DISCIPLINE, NEIGHBOUR, NEW_ADDRESS, NEW_DISCIPLINE, NEW_NEIGHBOUR, NEW_NEXTHOP,
    NEW_ROUTE, NEW_RULE, NEXTHOP, ROUTE, RULE,
};

pub(crate) use self::link::{Kind, Link, Peer};
pub use self::options::NetOptions;
pub(crate) use self::sysctl::Sysctl;
use crate::plan::PlanError;

/// Bytes of a list of addresses, routes or connections, or of rules; more than any machine has.
const LARGEST: u64 = 256 << 20;
/// What lists of addresses, routes and rules begin with.
const MAGIC_ADDRESS: u32 = 0x4736_1222;
const MAGIC_ROUTE: u32 = 0x4531_1224;
const MAGIC_RULE: u32 = 0x7170_6986;
/// `IFA_TARGET_NETNSID`
const OF_NAMESPACE: u16 = 10;
/// Bytes of `struct nfgenmsg`.
const NETFILTER: usize = 4;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW`
const NEW_CONNECTION: u16 = 1 << 8;
/// `NFNL_SUBSYS_CTNETLINK_EXP << 8 | IPCTNL_MSG_EXP_NEW`
const NEW_EXPECTATION: u16 = 2 << 8;

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Net {
    /// Its number in the images.
    pub(crate) id: u32,
    /// It is that of the root of the tree.
    pub(crate) is_root: bool,
    pub(crate) contents: Contents,
}

/// Where what is in it comes from.
#[derive(Debug)]
pub(crate) enum Contents {
    /// The caller has the namespace.
    Given(Given),
    /// Somebody else sets it up.
    Empty {
        /// All but `lo`, which is up.
        loopback: bool,
    },
    /// The images tell.
    Described(Box<Description>),
}

/// How the caller gives a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Given {
    /// By a descriptor for the key that the dump has recorded: `--inherit-fd`.
    Key(String),
    /// By a path: `--join-ns`.
    Path(PathBuf),
}

/// What the images tell.
#[derive(Debug, Default)]
pub(crate) struct Description {
    /// In the order in which they are set; not those of links.
    pub(crate) sysctls: Vec<Sysctl>,
    pub(crate) links: Vec<Link>,
    /// Messages of rtnetlink without their headers.
    pub(crate) addresses: Vec<Vec<u8>>,
    pub(crate) neighbours: Vec<Vec<u8>>,
    pub(crate) nexthops: Vec<Vec<u8>>,
    pub(crate) routes: Vec<Vec<u8>>,
    pub(crate) rules: Vec<Vec<u8>>,
    pub(crate) disciplines: Vec<Vec<u8>>,
    /// What `iptables-restore`, `ip6tables-restore` and `nft -f` are to read.
    pub(crate) iptables: Vec<u8>,
    pub(crate) ip6tables: Vec<u8>,
    pub(crate) nftables: Vec<u8>,
    /// Messages of conntrack, and of its expectations, without their headers.
    pub(crate) connections: Vec<Vec<u8>>,
    pub(crate) expected: Vec<Vec<u8>>,
    /// Numbers by which other namespaces are known.
    pub(crate) nsids: Vec<NetnsId>,
}

impl Net {
    /// Reads and checks the images of a namespace.
    pub(crate) fn read(
        dir: &Dir,
        id: u32,
        is_root: bool,
        options: &NetOptions,
    ) -> Result<Self, PlanError> {
        if let (true, Some(path)) = (is_root, &options.join) {
            return Ok(Self::joined(id, path));
        }
        let entry: Option<NetnsEntry> = dir.read_opt(ImageKind::Netns, id)?;
        let key = entry.as_ref().and_then(|entry| entry.ext_key.clone());
        let contents = match (key, options.empty) {
            (Some(key), _) => Contents::Given(Given::Key(key)),
            (None, true) => Contents::Empty {
                loopback: entry
                    .and_then(|entry| entry.gelid?.loopback_up)
                    .unwrap_or(false),
            },
            (None, false) => {
                let description = Description::read(dir, id, entry.unwrap_or_default())?;
                Contents::Described(Box::new(description))
            }
        };
        Ok(Self {
            id,
            is_root,
            contents,
        })
    }

    /// One that the root joins.
    pub(super) fn joined(id: u32, path: &Path) -> Self {
        Self {
            id,
            is_root: true,
            contents: Contents::Given(Given::Path(path.to_owned())),
        }
    }
}

/// Whether a set has images of a namespace.
pub(super) fn is_there(dir: &Dir, id: u32) -> bool {
    dir.reader(ImageKind::Netns, id).is_ok()
}

impl Description {
    fn read(dir: &Dir, id: u32, entry: NetnsEntry) -> Result<Self, PlanError> {
        let links: Vec<NetDeviceEntry> = dir.read_all(ImageKind::Netdev, id)?;
        let gelid = entry.gelid.clone().unwrap_or_default();
        let routes = [ImageKind::Route, ImageKind::Route6]
            .map(|kind| list(dir, kind, id, (MAGIC_ROUTE, NEW_ROUTE, ROUTE)));
        let [four, six] = routes;
        let neighbours = gelid.neighbours.as_deref().unwrap_or_default();
        let nexthops = gelid.nexthops.as_deref().unwrap_or_default();
        let disciplines = gelid.disciplines.as_deref().unwrap_or_default();
        let (image, netns) = (ImageKind::Netns, ImageKind::Netns);
        let addresses = list(
            dir,
            ImageKind::Ifaddr,
            id,
            (MAGIC_ADDRESS, NEW_ADDRESS, ADDRESS),
        )?;
        let elsewhere = |body: &Vec<u8>| Attributes(&body[ADDRESS..]).get(OF_NAMESPACE).is_some();
        if addresses.iter().any(elsewhere) {
            return Err(wrong(
                ImageKind::Ifaddr,
                id,
                "an address is that of another namespace",
                0,
            ));
        }
        let mut links = link::read(id, links)?;
        let undecided: Vec<u32> = addresses
            .iter()
            .filter_map(|body| undecided(body))
            .collect();
        for link in &mut links {
            link.is_undecided = undecided.contains(&link.index);
        }
        Ok(Self {
            sysctls: sysctl::of_namespace(id, &entry)?,
            links,
            addresses,
            neighbours: bodies(image, id, neighbours, (NEW_NEIGHBOUR, NEIGHBOUR))?,
            nexthops: bodies(netns, id, nexthops, (NEW_NEXTHOP, NEXTHOP))?,
            routes: [four?, six?].concat(),
            disciplines: bodies(netns, id, disciplines, (NEW_DISCIPLINE, DISCIPLINE))?,
            rules: list(dir, ImageKind::Rule, id, (MAGIC_RULE, NEW_RULE, RULE))?,
            iptables: text(dir, ImageKind::Iptables, id)?,
            ip6tables: text(dir, ImageKind::Ip6tables, id)?,
            nftables: text(dir, ImageKind::Nftables, id)?,
            connections: tight(dir, ImageKind::NetnsCt, id, NEW_CONNECTION)?,
            expected: tight(dir, ImageKind::NetnsExp, id, NEW_EXPECTATION)?,
            nsids: entry.nsids,
        })
    }
}

/// The index of the link of an address that may be somebody else's.
fn undecided(address: &[u8]) -> Option<u32> {
    /// `IFA_FLAGS`
    const FLAGS: u16 = 8;
    /// `IFA_F_TENTATIVE`
    const TENTATIVE: u32 = 0x40;
    let flags = Attributes(address.get(ADDRESS..)?).word(FLAGS)?;
    word(address, 4).filter(|_| flags & TENTATIVE != 0)
}

/// The bytes of an image without a form of its own; none if it is missing.
fn bytes(dir: &Dir, kind: ImageKind, id: u32) -> Result<Vec<u8>, PlanError> {
    let name = kind.file_name(id).unwrap_or_default();
    match dir.raw_bytes(&name, LARGEST) {
        Err(error) if error.is_missing() => Ok(Vec::new()),
        bytes => Ok(bytes?),
    }
}

/// Messages behind a magic number.
fn list(
    dir: &Dir,
    kind: ImageKind,
    id: u32,
    (magic, message, fixed): (u32, u16, usize),
) -> Result<Vec<Vec<u8>>, PlanError> {
    let bytes = bytes(dir, kind, id)?;
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    match bytes.strip_prefix(&magic.to_ne_bytes()) {
        Some(rest) => bodies(kind, id, rest, (message, fixed)),
        None => Err(wrong(kind, id, "it begins with another number", magic)),
    }
}

/// What follows the headers of messages of one kind.
fn bodies(
    image: ImageKind,
    id: u32,
    bytes: &[u8],
    (kind, fixed): (u16, usize),
) -> Result<Vec<Vec<u8>>, PlanError> {
    let mut all = Vec::new();
    for message in messages(bytes) {
        let sound = message.filter(|message| {
            let attributes = message.body.get(fixed..).map(Attributes);
            message.kind == kind && attributes.is_some_and(Attributes::are_sound)
        });
        match sound {
            Some(message) => all.push(message.body.to_vec()),
            None => return Err(wrong(image, id, "a message is damaged", all.len())),
        }
    }
    Ok(all)
}

/// Messages of netfilter, which are not padded.
fn tight(dir: &Dir, kind: ImageKind, id: u32, expected: u16) -> Result<Vec<Vec<u8>>, PlanError> {
    let bytes = bytes(dir, kind, id)?;
    let mut all = Vec::new();
    for message in unpadded(&bytes) {
        let sound = message.filter(|message| {
            let attributes = message.body.get(NETFILTER..).map(Attributes);
            message.kind == expected && attributes.is_some_and(Attributes::are_sound)
        });
        match sound {
            Some(message) => all.push(message.body.to_vec()),
            None => return Err(wrong(kind, id, "a message is damaged", all.len())),
        }
    }
    Ok(all)
}

/// Rules as text. They are read by programs with the rights of the restore, so they must not name files.
fn text(dir: &Dir, kind: ImageKind, id: u32) -> Result<Vec<u8>, PlanError> {
    let bytes = bytes(dir, kind, id)?;
    let mut statements = bytes.split(|byte| matches!(byte, b'\n' | b';' | b'{' | b'}'));
    let includes = |statement: &[u8]| statement.trim_ascii().starts_with(b"include");
    if kind == ImageKind::Nftables && statements.any(includes) {
        return Err(wrong(kind, id, "rules name a file", "include"));
    }
    if bytes.contains(&0) {
        return Err(wrong(kind, id, "rules are no text", "a zero"));
    }
    Ok(bytes)
}

/// An image that does not make sense.
fn wrong(kind: ImageKind, id: u32, what: &'static str, found: impl ToString) -> PlanError {
    PlanError::Net {
        image: kind.file_name(id).unwrap_or_default(),
        what,
        found: found.to_string(),
    }
}

#[cfg(test)]
mod tests;
