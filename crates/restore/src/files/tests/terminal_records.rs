//! Records of terminals that nobody wrote in good faith.

use gelid_image::messages::{
    GelidTtyDataEntry, GelidTtyInfoEntry, TermiosEntry, TtyDataEntry, TtyInfoEntry, TtyPtyEntry,
    WinsizeEntry,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::hostile::id;

pub(super) fn terminals() -> impl Strategy<Value = Vec<TtyInfoEntry>> {
    let termios = prop::option::of(vec(any::<u32>(), 0..25));
    let index = prop::option::of(id());
    let more = (any::<u32>(), any::<u32>(), prop::option::of(any::<u32>()));
    let terminal =
        (id(), 0..8i32, termios, index, more).prop_map(|(id, kind, c_cc, index, more)| {
            let (sid, size, stop) = more;
            TtyInfoEntry {
                id,
                r#type: kind,
                sid,
                pgrp: sid,
                termios: c_cc.map(|c_cc| TermiosEntry {
                    c_cc,
                    c_lflag: sid,
                    ..Default::default()
                }),
                winsize: Some(WinsizeEntry {
                    ws_row: size,
                    ..Default::default()
                }),
                pty: index.map(|index| TtyPtyEntry { index }),
                gelid: stop.map(|stop| GelidTtyInfoEntry {
                    stop: Some(stop),
                    closed: Some(true),
                }),
                ..Default::default()
            }
        });
    vec(terminal, 0..4)
}

pub(super) fn waiting() -> impl Strategy<Value = Vec<TtyDataEntry>> {
    let lines = prop::option::of(vec(any::<u32>(), 0..4));
    let entry = (id(), vec(any::<u8>(), 0..9), lines).prop_map(|(tty_id, data, lines)| {
        let to_slave = Some(data.clone());
        TtyDataEntry {
            tty_id,
            data,
            gelid: lines.map(|lines| GelidTtyDataEntry { lines, to_slave }),
        }
    });
    vec(entry, 0..3)
}
