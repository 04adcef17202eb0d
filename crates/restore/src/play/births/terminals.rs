//! Terminals of sessions: who takes them, who is in their foreground, who has left them.

use std::os::fd::AsRawFd;

use gelid_sys::syscall::nr;
use gelid_sys::tty::{TIOCNOTTY, TIOCSPGRP};

use super::super::script::{Object, Script};
use super::Births;
use crate::Error;
use crate::plan::Life;
use crate::plan::births::Who;

impl Births<'_> {
    /// The descriptor of the terminal that a leader is to take.
    pub(super) fn terminal(&self, who: Who) -> Option<i32> {
        let Who::Task(index) = who else { return None };
        let mut terminals = self.plan.births.terminals.iter();
        terminals.find(|(leader, _)| *leader == index)?;
        let terminal = self.files.terminal_of(self.plan.nodes[index].pid);
        terminal.map(|terminal| terminal.as_raw_fd())
    }

    /// Groups come to the foreground of their terminals, and some tasks leave those.
    pub(super) fn terminals(&mut self) -> Result<(), Error> {
        let mut work = Vec::new();
        for (leader, foreground) in &self.plan.births.terminals {
            let who = Who::Task(*leader);
            if let (Some(terminal), Some(pgid)) = (self.terminal(who), foreground) {
                let mut script = Script::default();
                let group = script.bytes(&pgid.to_ne_bytes());
                let args = [terminal.into(), TIOCSPGRP.into(), group.into()];
                script.must(Object::Terminal(*pgid), nr::ioctl, args);
                work.push((who, script));
            }
        }
        self.crew.play(&work)?;
        let mut work = Vec::new();
        for (index, life) in self.plan.lives.iter().enumerate() {
            let sid = self.plan.nodes[index].sid;
            if let (Life::Alive(alive), Some(terminal)) = (life, self.files.terminal_of(sid))
                && alive.no_terminal
                && !self.plan.nodes[index].leads_session()
            {
                let mut script = Script::default();
                let args = [terminal.as_raw_fd().into(), TIOCNOTTY.into(), 0.into()];
                script.must(Object::Terminal(sid), nr::ioctl, args);
                work.push((Who::Task(index), script));
            }
        }
        self.crew.play(&work)?;
        Ok(())
    }
}
