//! Terminals of sessions: who takes them, who is in their foreground, who has left them.

use std::os::fd::AsRawFd;

use gelid_sys::syscall::nr;
use gelid_sys::tty::{TIOCNOTTY, TIOCSCTTY, TIOCSPGRP};

use super::super::script::{Object, Script};
use super::Births;
use crate::Error;
use crate::plan::Life;
use crate::plan::births::{Taken, Who};

impl Births<'_> {
    /// Appends what makes a terminal that of the session that a task has just begun. Its children inherit it.
    pub(super) fn take_terminal(&self, who: Who, script: &mut Script) {
        let Who::Task(index) = who else { return };
        let mut taken = self.plan.births.terminals.iter();
        let Some(taken) = taken.find(|taken| taken.leader == index) else {
            return;
        };
        if let Some(terminal) = self.terminal(taken) {
            let args = [terminal.into(), TIOCSCTTY.into(), 0.into()];
            let session = self.plan.nodes[index].pid;
            match taken.is_given {
                true => script.call(nr::ioctl, args),
                false => script.must(Object::Terminal(session), nr::ioctl, args),
            };
        }
    }

    fn terminal(&self, taken: &Taken) -> Option<i32> {
        let terminal = self.files?.terminal_of(self.plan.nodes[taken.leader].pid);
        terminal.map(|terminal| terminal.as_raw_fd())
    }

    /// Groups come to the foreground of their terminals, and some tasks leave those.
    pub(super) fn terminals(&mut self) -> Result<(), Error> {
        let mut work = Vec::new();
        for taken in &self.plan.births.terminals {
            if let (Some(terminal), Some(pgid)) = (self.terminal(taken), taken.foreground) {
                let mut script = Script::default();
                let level = self.plan.nodes[taken.leader].level();
                let group = self.plan.seen_from(level, pgid);
                let group = script.bytes(&group.to_ne_bytes());
                let args = [terminal.into(), TIOCSPGRP.into(), group.into()];
                match taken.is_given {
                    true => script.call(nr::ioctl, args),
                    false => script.must(Object::Terminal(pgid), nr::ioctl, args),
                };
                work.push((Who::Task(taken.leader), script));
            }
        }
        self.crew.play(&work)?;
        let Some(files) = self.files else {
            return Ok(());
        };
        let mut work = Vec::new();
        for (index, life) in self.plan.lives.iter().enumerate() {
            let sid = self.plan.nodes[index].sid;
            if let (Life::Alive(alive), Some(terminal)) = (life, files.terminal_of(sid))
                && alive.no_terminal
                && !self.plan.nodes[index].leads_session()
            {
                let mut script = Script::default();
                let args = [terminal.as_raw_fd().into(), TIOCNOTTY.into(), 0.into()];
                // ENOTTY: the session has none, as the terminal was given and belongs to another.
                script.call(nr::ioctl, args);
                work.push((Who::Task(index), script));
            }
        }
        self.crew.play(&work)?;
        Ok(())
    }
}
