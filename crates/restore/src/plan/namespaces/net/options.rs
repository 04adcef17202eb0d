//! What the caller says about network namespaces.

use std::path::PathBuf;

/// Options that concern network namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetOptions {
    /// `--external veth[IN]:OUT[@BRIDGE]`: what the outer end of a pair is called, and the bridge it becomes a port of.
    pub veth: Vec<(String, String, Option<String>)>,
    /// `--external macvlan[IN]:OUT`: the link of the restorer that a macvlan lies on.
    pub macvlan: Vec<(String, String)>,
    /// `--external netdev[IN]:NAME`: a link of the restorer that is moved into the namespace and called so there.
    pub netdev: Vec<(String, String)>,
    /// `--join-ns net:PATH`: the namespace that the tree is to be in.
    pub join: Option<PathBuf>,
    /// `--empty-ns net`: somebody else sets up what is in the namespace.
    pub empty: bool,
    /// `--weak-sysctls`: sysctls that this kernel lacks are left out.
    pub weak_sysctls: bool,
}

impl NetOptions {
    /// Takes what concerns links from keys as `--external` has them, `TYPE[ID]:VALUE`.
    #[must_use]
    pub fn from_external(keys: &[String]) -> Self {
        let mut options = Self::default();
        for key in keys {
            let Some((kind, rest)) = key.split_once('[') else {
                continue;
            };
            let Some((inner, outer)) = rest.split_once("]:") else {
                continue;
            };
            let both = (inner.to_owned(), outer.to_owned());
            match kind {
                "veth" => {
                    let (outer, bridge) = match outer.split_once('@') {
                        Some((outer, bridge)) => (outer, Some(bridge.to_owned())),
                        None => (outer, None),
                    };
                    options.veth.push((both.0, outer.to_owned(), bridge));
                }
                "macvlan" => options.macvlan.push(both),
                "netdev" => options.netdev.push(both),
                _ => {}
            }
        }
        options
    }

    /// Name and bridge of the outer end of a pair; of several with one name the last counts.
    pub(crate) fn outer_end(&self, inner: &str) -> Option<(&str, Option<&str>)> {
        let mut all = self.veth.iter().rev();
        all.find(|(name, ..)| name == inner)
            .map(|(_, outer, bridge)| (outer.as_str(), bridge.as_deref()))
    }

    /// What a macvlan lies on.
    pub(crate) fn below(&self, inner: &str) -> Option<&str> {
        last(&self.macvlan, inner)
    }

    /// What is moved in as this link.
    pub(crate) fn moved(&self, inner: &str) -> Option<&str> {
        last(&self.netdev, inner)
    }
}

fn last<'a>(pairs: &'a [(String, String)], inner: &str) -> Option<&'a str> {
    let mut all = pairs.iter().rev();
    all.find(|(name, _)| name == inner)
        .map(|(_, outer)| outer.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_understood() {
        let keys = [
            "veth[eth0]:v1@br0",
            "veth[eth0]:v2",
            "macvlan[m]:eth9",
            "netdev[a]:b",
            "mnt[]",
        ];
        let options = NetOptions::from_external(&keys.map(str::to_owned));
        assert_eq!(options.outer_end("eth0"), Some(("v2", None)));
        assert_eq!(options.veth[0].2.as_deref(), Some("br0"));
        assert_eq!(
            (options.below("m"), options.moved("a")),
            (Some("eth9"), Some("b"))
        );
        assert_eq!(options.outer_end("eth1"), None);
    }
}
