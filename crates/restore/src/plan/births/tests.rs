//! Who is born of whom.

use super::*;

fn node(pid: i32, parent: Option<usize>, pgid: i32, sid: i32) -> Node {
    Node {
        pid,
        parent,
        pgid,
        sid,
        threads: vec![pid],
        place: None,
        pid_ns_for_children: None,
    }
}

fn fork(child: usize) -> Step {
    Step::Fork {
        child: Who::Task(child),
        flags: 0,
    }
}

#[test]
fn children_of_the_old_session_come_before_setsid() {
    let nodes = [
        node(10, None, 10, 10),
        node(11, Some(0), 11, 11),
        node(12, Some(1), 10, 10),
        node(13, Some(1), 11, 11),
    ];
    let births = plan(&nodes, &[None; 4], &[], false).unwrap();
    assert_eq!(births.steps[0], [Step::SetSid, fork(1)]);
    assert_eq!(births.steps[1], [fork(2), Step::SetSid, fork(3)]);
    assert_eq!(births.groups, [None; 4]);
}

#[test]
fn a_dead_leader_is_replaced_for_a_while() {
    let nodes = [
        node(10, None, 10, 10),
        node(12, Some(0), 11, 11),
        node(13, Some(0), 13, 11),
    ];
    let births = plan(&nodes, &[None; 3], &[], false).unwrap();
    let helper = &births.helpers[0];
    assert_eq!((helper.pid, helper.parent), (Some(11), 0));
    assert_eq!(helper.steps[0], Step::SetSid);
    assert_eq!(helper.steps.len(), 3);
    assert_eq!(births.groups, [None, None, Some(13)]);
}

#[test]
fn a_dead_group_leader_is_made_in_the_session() {
    let nodes = [node(10, None, 10, 10), node(12, Some(0), 11, 10)];
    let births = plan(&nodes, &[None; 2], &[], false).unwrap();
    assert!(births.helpers[0].leads_group);
    assert_eq!(births.helpers[0].parent, 1);
    assert_eq!(births.groups, [None, Some(11)]);
}

#[test]
fn a_group_that_has_ended_can_be_in_the_foreground() {
    let nodes = [
        node(10, None, 10, 10),
        node(12, Some(0), 12, 12),
        node(13, Some(1), 13, 12),
    ];
    let session = |sid, foreground| Session {
        sid,
        foreground,
        is_given: false,
    };
    let taken = |leader, foreground| Taken {
        leader,
        foreground,
        is_given: false,
    };
    let sessions = [
        session(10, Some(11)),
        session(12, Some(13)),
        session(99, None),
    ];
    let births = plan(&nodes, &[None; 3], &sessions, false).unwrap();
    assert_eq!(births.terminals, [taken(0, Some(11)), taken(1, Some(13))]);
    let helper = &births.helpers[0];
    assert!(births.helpers.len() == 1 && helper.leads_group);
    assert_eq!((helper.pid, helper.parent), (Some(11), 0));
}

#[test]
fn shared_tables_become_flags() {
    let tables = |vm, files| {
        Some(Tables {
            vm,
            files,
            fs: vm + 100,
            sighand: vm + 200,
        })
    };
    let nodes = [node(10, None, 10, 10), node(12, Some(0), 10, 10)];
    let births = plan(&nodes, &[tables(1, 7), tables(2, 7)], &[], false).unwrap();
    let shared = Step::Fork {
        child: Who::Task(1),
        flags: flags::FILES,
    };
    assert_eq!(births.steps[0][1], shared);
}

#[test]
fn who_shares_nothing_is_told() {
    let with = |vm, files| {
        Some(Tables {
            vm,
            files,
            fs: vm,
            sighand: vm,
        })
    };
    let tables = [with(1, 1), with(2, 2), None, with(3, 2), with(4, 1 << 20)];
    assert_eq!(alone(&tables), [true, false, true, false, true]);
}
