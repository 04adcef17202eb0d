//! Conversations, and the exit codes behind them.

use super::*;
use proptest::prelude::*;
use prost::Message;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown,
    socketpair,
};

/// Succeeds or fails at everything.
struct Agreeable(bool);

impl Agreeable {
    fn answer<T>(&self, value: T) -> Answer<T> {
        Answer {
            result: self.0.then_some(value).ok_or(Failure::with_errno(3)),
            message: (!self.0).then(|| "Error (x:1): no\n".repeat(100)),
        }
    }
}

impl Handler for Agreeable {
    fn version(&mut self) -> Version {
        Version {
            major_number: 4,
            minor_number: 2,
            ..Version::default()
        }
    }

    fn features(&mut self, _: Features) -> Features {
        Features {
            mem_track: Some(self.0),
            lazy_pages: Some(self.0),
            pidfd_store: Some(self.0),
        }
    }

    fn check(&mut self, _: Option<&Options>) -> Answer {
        self.answer(())
    }

    fn cpuinfo(&mut self, _: RequestKind, _: &Options) -> Answer {
        self.answer(())
    }

    fn page_server(&mut self, _: RequestKind, _: &Options) -> Answer<PageServer> {
        self.answer(PageServer::default())
    }

    fn wait_for(&mut self, pid: u32) -> Answer<i32> {
        self.answer(pid.cast_signed())
    }

    fn pre_dump(&mut self, _: &Options) -> Answer {
        self.answer(())
    }

    fn dump(&mut self, _: &Options) -> Answer {
        self.answer(())
    }

    fn restore(&mut self, _: &Options) -> Answer<i32> {
        self.answer(77)
    }
}

/// Sends packets, and gives the answers and the exit code.
fn conversation(packets: &[Vec<u8>], succeeds: bool) -> (Vec<Response>, u8) {
    let (ours, client) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    for packet in packets {
        send(&client, packet, SendFlags::empty()).unwrap();
    }
    shutdown(&client, Shutdown::Write).unwrap();
    let channel = Channel::new(ours).unwrap();
    let code = serve(&channel, &mut Agreeable(succeeds));
    drop(channel);
    let mut answers = Vec::new();
    let mut packet = [0; 8192];
    while let Ok((length, _)) = recv(&client, &mut packet, RecvFlags::empty()) {
        if length == 0 {
            break;
        }
        answers.push(Response::decode(&packet[..length]).unwrap());
    }
    (answers, code)
}

fn request(kind: RequestKind) -> Request {
    Request {
        r#type: kind.into(),
        opts: Some(Box::default()),
        features: Some(Features::default()),
        ..Request::default()
    }
}

fn packets(requests: &[Request]) -> Vec<Vec<u8>> {
    requests.iter().map(Message::encode_to_vec).collect()
}

#[test]
fn types_and_exit_codes_are_those_of_criu() {
    use RequestKind::*;
    for (kind, answered, well, ill) in [
        (Version, Version, 0, 0),
        (FeatureCheck, FeatureCheck, 0, 0),
        (Check, Check, 0, 0),
        (CpuinfoDump, CpuinfoDump, 0, 0),
        (CpuinfoCheck, CpuinfoCheck, 0, 0),
        (PageServer, PageServer, 0, 0),
        (PageServerChild, PageServer, 0, 0),
        (WaitPid, WaitPid, 0, 0),
        (Dump, Dump, 0, 1),
        (Restore, Restore, 0, 1),
        (SinglePreDump, SinglePreDump, 0, 255),
        (PreDump, PreDump, 0, 255),
        (Notify, Empty, 255, 255),
        (Empty, Empty, 255, 255),
    ] {
        for (succeeds, code) in [(true, well), (false, ill)] {
            let (answers, got) = conversation(&packets(&[request(kind)]), succeeds);
            assert_eq!(got, code, "{kind:?}");
            assert_eq!(answers.len(), 1, "{kind:?}");
            assert_eq!(answers[0].r#type(), answered, "{kind:?}");
            let always = matches!(kind, Version | FeatureCheck);
            let never = matches!(kind, Notify | Empty);
            assert_eq!(answers[0].success, (succeeds || always) && !never);
            let size = answers[0].cr_errmsg.as_ref().map_or(0, Vec::len);
            assert!(size <= LONGEST_MESSAGE);
        }
    }
}

#[test]
fn a_version_is_answered_as_by_criu() {
    let (answers, _) = conversation(&[vec![0x08, 0x0a]], true);
    let bytes = answers[0].encode_to_vec();
    assert_eq!(
        bytes,
        [0x08, 0x0a, 0x10, 0x01, 0x52, 0x04, 0x08, 0x04, 0x10, 0x02]
    );
}

#[test]
fn a_dump_without_options_is_a_bad_request() {
    let (answers, code) = conversation(&[vec![0x08, 0x01]], true);
    assert_eq!((answers[0].cr_errno, code), (Some(56), 1));
    let without_message = Response {
        cr_errmsg: None,
        ..answers[0].clone()
    };
    // The sample of the description, which says of `dump` that nothing was restored.
    assert_eq!(
        without_message.encode_to_vec(),
        [0x08, 0x01, 0x10, 0x00, 0x1a, 0x02, 0x08, 0x00, 0x38, 0x38]
    );
}

#[test]
fn connections_stay_open_where_they_may() {
    let kept = |kind| Request {
        keep_open: Some(true),
        ..request(kind)
    };
    let version = RequestKind::Version;
    let (answers, code) = conversation(&packets(&[kept(version), request(version)]), true);
    assert_eq!((answers.len(), code), (2, 0));
    let (answers, code) = conversation(&packets(&[kept(version)]), true);
    assert_eq!((answers.len(), code), (1, 255));
    for kind in [RequestKind::Check, RequestKind::WaitPid, RequestKind::Dump] {
        let (answers, code) = conversation(&packets(&[kept(kind)]), true);
        assert_eq!((answers.len(), code), (0, 255), "{kind:?}");
    }
}

#[test]
fn features_that_were_not_asked_for_are_not_there() {
    let asked = Features {
        lazy_pages: Some(true),
        ..Features::default()
    };
    let ask = Request {
        features: Some(asked),
        ..request(RequestKind::FeatureCheck)
    };
    let (answers, _) = conversation(&packets(&[ask]), true);
    let found = answers[0].features.unwrap();
    assert_eq!(found.mem_track, Some(false));
    assert_eq!(found.lazy_pages, Some(true));
    let (answers, code) = conversation(&[vec![0x08, 0x09]], true);
    assert_eq!((answers[0].success, code), (false, 0));
}

#[test]
fn pre_dumps_come_before_a_dump() {
    let asked = [
        RequestKind::PreDump,
        RequestKind::PreDump,
        RequestKind::Dump,
    ]
    .map(request);
    let (answers, code) = conversation(&packets(&asked), true);
    assert_eq!((answers.len(), code), (3, 0));
    let asked = [RequestKind::PreDump, RequestKind::Version].map(request);
    let (answers, code) = conversation(&packets(&asked), true);
    assert_eq!((answers[1].r#type(), code), (RequestKind::Empty, 255));
    assert_eq!(answers[1].cr_errmsg.as_deref(), Some(&b"Bad req seq"[..]));
}

#[test]
fn nonsense_ends_a_connection() {
    for packet in [vec![0xff], vec![], vec![0x08]] {
        let (answers, code) = conversation(&[packet], true);
        assert_eq!((answers.len(), code), (0, 255));
    }
    let (answers, code) = conversation(&[vec![0x08, 0x63]], true);
    assert_eq!((answers[0].r#type(), code), (RequestKind::Empty, 255));
}

proptest! {
    #[test]
    fn no_packet_makes_it_panic(packet in proptest::collection::vec(any::<u8>(), 1..200)) {
        conversation(&[packet], true);
    }

    #[test]
    fn no_options_make_it_panic(mut opts in proptest::collection::vec(any::<u8>(), 1..200), kind in 0..16u8) {
        let mut packet = vec![0x08, kind, 0x12];
        let mut length = Vec::new();
        prost::encode_length_delimiter(opts.len(), &mut length).unwrap();
        packet.append(&mut length);
        packet.append(&mut opts);
        conversation(&[packet], true);
    }
}
