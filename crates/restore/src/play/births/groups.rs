//! Tasks come to their groups.

use gelid_sys::syscall::nr;

use super::Births;
use crate::Error;
use crate::plan::births::{Helper, Who};
use crate::plan::tree::Node;
use crate::play::script::{Object, Script};

impl Births<'_> {
    /// Everyone joins the group it belongs to, leaders first.
    pub(super) fn groups(&mut self) -> Result<(), Error> {
        let births = &self.plan.births;
        let leads = |helper: &(usize, &Helper)| helper.1.leads_group;
        let helpers = births.helpers.iter().enumerate().filter(leads);
        let helpers = helpers.map(|(index, _)| Who::Helper(index));
        let tasks = (0..births.groups.len()).map(Who::Task);
        let (leaders, members) = self.leaders_and_members(helpers.chain(tasks));
        self.lead(&leaders)?;
        self.join(&members)
    }

    /// Those just born join theirs before they have children, where these could not: their number for the group may be
    /// none. Groups that come to be later are left for later.
    pub(super) fn join_at_birth(&mut self, wave: &[Who]) -> Result<(), Error> {
        let (leaders, mut members) = self.leaders_and_members(wave.iter().copied());
        self.lead(&leaders)?;
        members.retain(|(_, pgid)| {
            let leads = |node: &Node| node.pid == *pgid;
            let leader = self.plan.nodes.iter().position(leads);
            leader.is_some_and(|leader| {
                let leader_of_all = self.plan.nodes[leader].leads_session();
                let is_born = self.crew.bodies.contains_key(&Who::Task(leader));
                self.crew.joined.contains(&Who::Task(leader)) || (leader_of_all && is_born)
            })
        });
        self.join(&members)
    }

    /// Who has yet to become the leader of a group, and who has yet to join one.
    fn leaders_and_members(&self, all: impl Iterator<Item = Who>) -> (Vec<Who>, Vec<(usize, i32)>) {
        let births = &self.plan.births;
        let (mut leaders, mut members) = (Vec::new(), Vec::new());
        for who in all.filter(|who| !self.crew.joined.contains(who)) {
            match who {
                Who::Helper(index) if births.helpers[index].leads_group => leaders.push(who),
                Who::Helper(_) => {}
                Who::Task(index) => match births.groups[index] {
                    Some(pgid) if pgid == self.plan.nodes[index].pid => leaders.push(who),
                    Some(pgid) => members.push((index, pgid)),
                    None => {}
                },
            }
        }
        (leaders, members)
    }

    fn lead(&mut self, leaders: &[Who]) -> Result<(), Error> {
        let scripts: Vec<_> = leaders.iter().map(|who| (*who, setpgid(0, 0))).collect();
        self.crew.play(&scripts)?;
        self.crew.joined.extend(leaders);
        Ok(())
    }

    fn join(&mut self, members: &[(usize, i32)]) -> Result<(), Error> {
        let mut work = Vec::new();
        for (index, _) in members {
            let node = &self.plan.nodes[*index];
            let level = node.level();
            match node.group_from(level) {
                // Only who creates it can tell it, if that one is further out.
                0 => {
                    let above = node.parent.map(|parent| (parent, &self.plan.nodes[parent]));
                    if let Some((parent, above)) = above
                        && node.group_from(above.level()) != 0
                    {
                        let child = node.seen_from(above.level());
                        let group = node.group_from(above.level());
                        self.crew
                            .play(&[(Who::Task(parent), setpgid(child, group))])?;
                    }
                }
                pgid => work.push((Who::Task(*index), setpgid(0, pgid))),
            }
            self.crew.joined.insert(Who::Task(*index));
        }
        self.crew.play(&work).map(drop)
    }
}

fn setpgid(pid: i32, pgid: i32) -> Script {
    let mut script = Script::default();
    let args = [pid.into(), pgid.into()];
    script.must(Object::Task(pgid), nr::setpgid, args);
    script
}
