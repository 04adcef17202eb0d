//! Rules, and what takes them away again, as the programs of the firewall read them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::SocketAddr;

use super::{Connection, MARK, Method};

/// Longest argument of a program: the kernel takes 128 KiB.
const PIECE: usize = 100 << 10;

/// Longest name of a table with its family, as CRIU cuts it off.
const TABLE: usize = 31;

/// What one program is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The program that reads rules.
    pub(crate) program: &'static str,
    /// Its arguments.
    pub(crate) arguments: &'static [&'static str],
    /// The program that takes one rule as its arguments.
    pub(crate) single: Option<&'static str>,
    /// The rules.
    pub(crate) set: String,
    /// What takes them away, in pieces of whole lines.
    pub(crate) lift: Vec<String>,
}

/// What each program is told for these connections; nothing without any.
pub(crate) fn of(method: Method, run: &str, connections: &[Connection]) -> Vec<Rules> {
    // Whoever is in both ends of a connection has it twice.
    let connections: BTreeSet<_> = connections.iter().copied().collect();
    if connections.is_empty() {
        return Vec::new();
    }
    match method {
        Method::Skip => Vec::new(),
        Method::Nftables => vec![nftables(run, &connections)],
        Method::Iptables => {
            let (four, six): (Vec<_>, Vec<_>) =
                connections.into_iter().partition(Connection::is_v4);
            let four = iptables("iptables-restore", "iptables", &four);
            let six = iptables("ip6tables-restore", "ip6tables", &six);
            four.into_iter().chain(six).collect()
        }
    }
}

fn iptables(
    program: &'static str,
    single: &'static str,
    connections: &[Connection],
) -> Option<Rules> {
    if connections.is_empty() {
        return None;
    }
    let rule = |command: &str, chain: &str, from: SocketAddr, to: SocketAddr| {
        format!(
            "{command} {chain} -p tcp -m mark ! --mark {MARK:#x} -s {} --sport {} -d {} --dport {} -j DROP\n",
            from.ip(),
            from.port(),
            to.ip(),
            to.port()
        )
    };
    let both = |command: &str| {
        let rules = connections.iter().flat_map(|it| {
            [
                rule(command, "INPUT", it.peer, it.own),
                rule(command, "OUTPUT", it.own, it.peer),
            ]
        });
        rules.collect::<Vec<_>>()
    };
    let mut lift = vec!["*filter\n".to_owned()];
    for rule in both("-D") {
        match lift.last_mut() {
            Some(piece) if piece.len() + rule.len() < PIECE => piece.push_str(&rule),
            _ => lift.push(rule),
        }
    }
    lift.push("COMMIT\n".to_owned());
    Some(Rules {
        program,
        arguments: &["-w", "--noflush"],
        single: Some(single),
        set: format!("*filter\n{}COMMIT\n", both("-I").concat()),
        lift,
    })
}

fn nftables(run: &str, connections: &BTreeSet<Connection>) -> Rules {
    let mut table = format!("inet CRIU-{run}");
    table.truncate(TABLE);
    let mut set = format!("table {table} {{\n");
    for (name, kind) in [("conns4", "ipv4_addr"), ("conns6", "ipv6_addr")] {
        let _ = writeln!(
            set,
            "set {name} {{ type {kind} . inet_service . {kind} . inet_service; }}"
        );
    }
    for chain in ["input", "output"] {
        let _ = writeln!(
            set,
            "chain {chain} {{ type filter hook {chain} priority filter; policy accept;\n\
             meta mark {MARK:#x} accept\n\
             ip saddr . tcp sport . ip daddr . tcp dport @conns4 drop\n\
             ip6 saddr . tcp sport . ip6 daddr . tcp dport @conns6 drop\n}}"
        );
    }
    set.push_str("}\n");
    let mut elements: [BTreeSet<String>; 2] = Default::default();
    for connection in connections {
        let Connection { own, peer } = connection;
        for (from, to) in [(own, peer), (peer, own)] {
            let element = format!(
                "{} . {} . {} . {}",
                from.ip(),
                from.port(),
                to.ip(),
                to.port()
            );
            elements[usize::from(!connection.is_v4())].insert(element);
        }
    }
    for (name, elements) in ["conns4", "conns6"].into_iter().zip(elements) {
        if !elements.is_empty() {
            let elements: Vec<String> = elements.into_iter().collect();
            let _ = writeln!(
                set,
                "add element {table} {name} {{ {} }}",
                elements.join(",\n")
            );
        }
    }
    Rules {
        program: "nft",
        arguments: &["-f", "-"],
        single: None,
        set,
        lift: vec![format!("delete table {table}\n")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(own: &str, peer: &str) -> Connection {
        Connection::new(own.parse().unwrap(), peer.parse().unwrap())
    }

    #[test]
    fn each_family_has_a_program() {
        let four = connection("[::ffff:127.0.0.1]:80", "127.0.0.1:9");
        let six = connection("[::1]:80", "[::1]:9");
        let rules = of(Method::Iptables, "x", &[four, six, four]);
        let [four, six] = &rules[..] else { panic!() };
        assert_eq!(
            (four.program, six.program),
            ("iptables-restore", "ip6tables-restore")
        );
        let expected = "*filter\n\
            -I INPUT -p tcp -m mark ! --mark 0xc114 -s 127.0.0.1 --sport 9 -d 127.0.0.1 --dport 80 -j DROP\n\
            -I OUTPUT -p tcp -m mark ! --mark 0xc114 -s 127.0.0.1 --sport 80 -d 127.0.0.1 --dport 9 -j DROP\n\
            COMMIT\n";
        assert_eq!(four.set, expected);
        assert_eq!(four.lift.concat(), expected.replace("-I", "-D"));
        assert!(six.set.contains("-s ::1 --sport 9"));
        assert!(
            of(
                Method::Skip,
                "x",
                &[Connection::new(
                    "127.0.0.1:1".parse().unwrap(),
                    "127.0.0.1:2".parse().unwrap()
                )]
            )
            .is_empty()
        );
        assert!(of(Method::Nftables, "x", &[]).is_empty());
    }

    #[test]
    fn tables_are_called_as_criu_calls_them() {
        let run = "941ccfc1-e088-4009-8012-123456789abc";
        let rules = of(Method::Nftables, run, &[connection("[::1]:80", "[::1]:9")]);
        let expected = "delete table inet CRIU-941ccfc1-e088-4009-80\n";
        assert_eq!(rules[0].lift, [expected]);
    }

    #[test]
    fn long_lists_are_told_in_pieces() {
        let many: Vec<_> = (1..5000u16)
            .map(|port| Connection::new(([127, 0, 0, 1], port).into(), ([127, 0, 0, 2], 80).into()))
            .collect();
        let rules = of(Method::Iptables, "x", &many);
        assert!(
            rules[0]
                .lift
                .iter()
                .all(|piece| piece.len() <= PIECE && piece.ends_with('\n'))
        );
        assert_eq!(rules[0].lift.concat().lines().count(), 2 + 2 * many.len());
    }
}
