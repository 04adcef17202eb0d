//! Requests of CRIU's RPC as invocations: their words between those of configuration files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use gelid_rpc::Words;

use super::getopt::Given;
use super::known::VERBOSITY;
use super::{Command, Identity, Invocation, Stop, config, getopt, typed};

/// The name of the log where nothing is said.
const LOG_FILE: &str = "criu.log";

/// What configuration files say when a process that serves requests starts.
#[derive(Debug, Default)]
pub(crate) struct Preset(Vec<Given>);

impl Preset {
    /// Reads the default files, and the one that `CRIU_CONFIG_FILE` names.
    ///
    /// # Errors
    ///
    /// A file that is no list of options.
    pub(crate) fn read() -> Result<Self, Stop> {
        let usage = |complaint: String| Stop::Usage(Some(complaint));
        let words = config::options(&[]).map_err(|error| usage(error.to_string()))?;
        let parsed = getopt::parse(words, false).map_err(|error| usage(error.to_string()))?;
        typed(&parsed.options)?;
        Ok(Self(parsed.options))
    }

    /// What a request asks for, not yet [checked](Invocation::check). It is understood as if gelid were called `criu`.
    ///
    /// # Errors
    ///
    /// As of a command line.
    pub(crate) fn with(&self, command: Command, words: Words) -> Result<Invocation, Stop> {
        let usage = |complaint: String| Stop::Usage(Some(complaint));
        let taken_apart = |words: Vec<OsString>| {
            let parsed = getopt::parse(words, false);
            parsed
                .map(|parsed| parsed.options)
                .map_err(|complaint| usage(complaint.to_string()))
        };
        // Where images are is for the request alone to say.
        let counts = |given: &&Given| {
            let name = given.known.name;
            name != "images-dir" && !(words.log_to_stderr && name == "log-file")
        };
        let mut options: Vec<Given> = self.0.iter().filter(counts).cloned().collect();
        options.extend(taken_apart(words.options)?);
        if let Some(file) = &words.config_file {
            let configured = config::file(Path::new(file));
            options.extend(taken_apart(
                configured.map_err(|error| usage(error.to_string()))?,
            )?);
        }
        options.push(Given {
            known: &VERBOSITY,
            value: Some(words.log_level.to_string().into()),
        });
        let mut options = typed(&options)?;
        if !words.log_to_stderr {
            let log = &mut options.general.log_file;
            log.get_or_insert_with(|| PathBuf::from(LOG_FILE));
        }
        Ok(Invocation {
            identity: Identity::Criu,
            command,
            options,
            words: words.program,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(options: &[&str]) -> Words {
        Words {
            options: options.iter().map(OsString::from).collect(),
            log_level: 4,
            ..Words::default()
        }
    }

    fn preset(options: &[&str]) -> Preset {
        let words = options.iter().map(OsString::from);
        let parsed = getopt::parse(words, false).unwrap();
        Preset(parsed.options)
    }

    #[test]
    fn a_request_wins_over_files() {
        let preset = preset(&[
            "--images-dir=/x",
            "--tcp-established",
            "--ghost-limit=8M",
            "-v1",
            "--log-file=/x.log",
        ]);
        let words = words(&["--images-dir=/i", "--tree=7", "--no-tcp-established"]);
        let dump = preset.with(Command::Dump, words).unwrap();
        assert_eq!(dump.options.general.images_dir, Path::new("/i"));
        assert!(!dump.options.files.tcp_established);
        assert_eq!(dump.options.files.ghost_limit, Some(8 << 20));
        assert_eq!(
            dump.options.general.log_file.as_deref(),
            Some(Path::new("/x.log"))
        );
        assert_eq!(dump.verbosity(), 4);
        assert_eq!(dump.compression(), super::super::Compression::None);
    }

    #[test]
    fn a_file_of_the_request_wins_over_all_but_the_level() {
        let file = std::env::temp_dir().join(format!("gelid-request-{}", std::process::id()));
        std::fs::write(&file, "log-file /a/b.log\nwork-dir /w\nverbosity 1\n").unwrap();
        let words = Words {
            config_file: Some(file.clone().into()),
            log_to_stderr: true,
            ..words(&["--images-dir=/i", "--work-dir=/v", "--log-file=c.log"])
        };
        let restore = Preset::default().with(Command::Restore, words);
        std::fs::remove_file(&file).unwrap();
        let general = restore
            .as_ref()
            .unwrap()
            .options
            .general
            .log_file
            .as_deref();
        assert_eq!(general, Some(Path::new("/a/b.log")));
        let restore = restore.unwrap();
        assert_eq!(
            restore.options.general.work_dir.as_deref(),
            Some(Path::new("/w"))
        );
        assert_eq!(restore.verbosity(), 4);
    }

    #[test]
    fn the_log_has_a_name_unless_it_goes_elsewhere() {
        let log = |preset: &Preset, words| {
            let dump = preset.with(Command::Dump, words).unwrap();
            dump.options.general.log_file
        };
        let tree = ["--images-dir=/i", "--tree=7"];
        let to_stderr = Words {
            log_to_stderr: true,
            ..words(&tree)
        };
        let preset = preset(&["--log-file=p.log"]);
        assert_eq!(
            log(&Preset::default(), words(&tree)),
            Some("criu.log".into())
        );
        assert_eq!(log(&preset, words(&tree)), Some("p.log".into()));
        assert_eq!(log(&preset, to_stderr), None);
    }

    #[test]
    fn every_word_is_an_option() {
        use gelid_rpc::messages::{Options, RequestKind};
        let text = || Some(b"net:/x".to_vec());
        // Everything that does not ask for what is not there.
        let asked = Options {
            images_dir: text(),
            images_dir_fd: -1,
            ext_unix_sk: Some(true),
            tcp_established: Some(true),
            evasive_devices: Some(true),
            shell_job: Some(true),
            file_locks: Some(true),
            track_mem: Some(false),
            auto_dedup: Some(false),
            link_remap: Some(false),
            force_irmap: Some(false),
            rst_sibling: Some(true),
            auto_ext_mnt: Some(true),
            ext_sharing: Some(true),
            ext_masters: Some(true),
            manage_cgroups: Some(true),
            ghost_limit: Some(7),
            timeout: Some(7),
            tcp_skip_in_flight: Some(true),
            weak_sysctls: Some(false),
            orphan_pts_master: Some(true),
            tcp_close: Some(true),
            tls: Some(false),
            tls_cacert: text(),
            tls_cacrl: text(),
            tls_cert: text(),
            tls_key: text(),
            tls_no_cn_verify: Some(true),
            cgroup_yard: text(),
            pre_dump_mode: Some(2),
            network_lock: Some(3),
            mntns_compat_mode: Some(true),
            skip_file_rwx_check: Some(true),
            unprivileged: Some(true),
            leave_stopped: Some(true),
            display_stats: Some(true),
            cpu_cap: Some(0),
            external: vec![b"mnt[]".to_vec()],
            skip_mnt: vec![b"/x".to_vec()],
            enable_fs: vec![b"x".to_vec()],
            irmap_scan_paths: vec![b"/x".to_vec()],
            cgroup_dump_controller: vec![b"cpu".to_vec()],
            freeze_cgroup: text(),
            ..Options::default()
        };
        let connection = gelid_rpc::Connection {
            peer: Some(1),
            service: false,
        };
        let words = gelid_rpc::words(RequestKind::Restore, &asked, connection).unwrap();
        let restore = Preset::default().with(Command::Restore, words).unwrap();
        assert_eq!(restore.check(), Ok(()));
        assert!(restore.options.tasks.orphan_pts_master && restore.options.tasks.restore_sibling);
    }
}
