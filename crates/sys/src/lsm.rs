//! Labels that security modules give to tasks: AppArmor profiles, SELinux contexts.

use std::fmt;
use std::io::Read;

use rustix::fs::{Access, OFlags, access};

use crate::proc::{Error, TaskDir};

/// A module that labels tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Module {
    /// AppArmor.
    AppArmor,
    /// SELinux.
    Selinux,
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AppArmor => "AppArmor",
            Self::Selinux => "SELinux",
        })
    }
}

/// The module that is at work in this kernel, if there is one.
#[must_use]
pub fn active() -> Option<Module> {
    let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled");
    if enabled.is_ok_and(|text| text.starts_with(b"Y")) {
        return Some(Module::AppArmor);
    }
    let selinux = access("/sys/fs/selinux/enforce", Access::EXISTS).is_ok();
    selinux.then_some(Module::Selinux)
}

/// Labels of a thread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// Of the thread itself; `None` if it is not confined.
    pub own: Option<String>,
    /// Of sockets that it makes, if that is another.
    pub sockets: Option<String>,
}

/// Reads the labels of a thread.
///
/// # Errors
///
/// As for all files of procfs.
pub fn labels(thread: &TaskDir, module: Module) -> Result<Labels, Error> {
    let own = read(thread, "attr/current")?;
    Ok(Labels {
        own: own.and_then(|text| confined(&text, module)),
        sockets: match module {
            Module::AppArmor => None,
            Module::Selinux => read(thread, "attr/sockcreate")?,
        },
    })
}

fn read(thread: &TaskDir, name: &str) -> Result<Option<String>, Error> {
    let mut text = Vec::new();
    let mut file = std::fs::File::from(thread.open_file(name, OFlags::RDONLY)?);
    // Modules that have nothing to tell refuse.
    if file.read_to_end(&mut text).is_err() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&text);
    let text = text.trim_end_matches(['\n', '\0']);
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// The label that confines a task, without the mode that AppArmor adds.
fn confined(text: &str, module: Module) -> Option<String> {
    let label = match (module, text.rsplit_once(" (")) {
        (Module::AppArmor, Some((profile, mode))) if mode.ends_with(')') => profile,
        _ => text,
    };
    (module != Module::AppArmor || label != "unconfined").then(|| label.to_owned())
}

/// What a thread writes to `attr/current` to get a label.
#[must_use]
pub fn request(module: Module, label: &str) -> String {
    match module {
        Module::AppArmor => format!("changeprofile {label}"),
        Module::Selinux => label.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_the_lack_of_a_profile_are_no_labels() {
        let apparmor = |text| confined(text, Module::AppArmor);
        assert_eq!(apparmor("unconfined"), None);
        assert_eq!(
            apparmor("/usr/bin/x (enforce)").as_deref(),
            Some("/usr/bin/x")
        );
        assert_eq!(apparmor("a (b) (complain)").as_deref(), Some("a (b)"));
        let context = "system_u:system_r:init_t:s0";
        assert_eq!(confined(context, Module::Selinux).as_deref(), Some(context));
        assert_eq!(request(Module::AppArmor, "x"), "changeprofile x");
    }

    #[test]
    fn a_kernel_without_modules_has_no_labels() {
        let own = TaskDir::open(rustix::process::getpid()).unwrap();
        if active().is_none() {
            assert_eq!(labels(&own, Module::Selinux).unwrap(), Labels::default());
        }
    }
}
