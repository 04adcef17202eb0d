//! Whole command lines.

use super::getopt::Takes;
use super::*;

fn invocation(line: &str) -> Result<Invocation, Stop> {
    parse(line.split_whitespace().map(OsString::from)).1
}

fn refused(line: &str) -> String {
    match invocation(line) {
        Err(Stop::Refused { what, .. }) => what,
        Err(Stop::Usage(Some(complaint))) => complaint,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_definition_is_sound() {
    Options::command().debug_assert();
}

#[test]
fn all_names_are_known() {
    let mut definition = Options::command();
    definition.build();
    let defined = definition.get_arguments().flat_map(|arg| {
        let optional = arg
            .get_num_args()
            .is_some_and(|range| range.min_values() == 0);
        let takes = match (arg.get_action().takes_values(), optional) {
            (false, _) => Takes::Nothing,
            (true, false) => Takes::Required,
            (true, true) => Takes::Optional,
        };
        let long = arg.get_long().unwrap();
        assert_eq!(arg.get_id().as_str().replace('_', "-"), long);
        let aliases = arg.get_all_aliases().unwrap_or_default();
        std::iter::once(long).chain(aliases).map(move |name| {
            let name = name.to_owned();
            (name, arg.get_short(), takes, long.to_owned())
        })
    });
    let known = known::ALL
        .iter()
        .filter(|known| !known.negates)
        .map(|known| {
            let (name, meaning) = (known.name.to_owned(), known.meaning.to_owned());
            (name, known.letter, known.takes, meaning)
        });
    assert_eq!(known.collect::<Vec<_>>(), defined.collect::<Vec<_>>());
}

#[test]
fn negations_are_of_flags() {
    let all = known::ALL;
    for negation in all.iter().filter(|known| known.negates) {
        let flag = all.iter().find(|known| known.name == negation.meaning);
        let flag = flag.unwrap_or_else(|| panic!("{negation:?}"));
        assert!(flag.takes == Takes::Nothing && !flag.negates && flag.group == negation.group);
    }
}

#[test]
fn names_belong_to_their_groups() {
    fn check<G: Args>(group: Group) {
        let definition = G::augment_args(clap::Command::new("gelid"));
        let defined = definition
            .get_arguments()
            .map(|arg| arg.get_long().unwrap());
        let of_group = known::ALL.iter().filter(|known| known.group == group);
        let own = of_group.filter(|known| !known.negates && known.name == known.meaning);
        assert!(own.map(|known| known.name).eq(defined), "{group:?}");
    }
    check::<options::General>(Group::General);
    check::<options::Tasks>(Group::Tasks);
    check::<options::Files>(Group::Files);
    check::<options::Memory>(Group::Memory);
    check::<options::Namespaces>(Group::Namespaces);
    check::<options::Cgroups>(Group::Cgroups);
    check::<options::Check>(Group::Check);
}

#[test]
fn defaults_are_those_of_clap() {
    let nothing = typed(&[]).unwrap();
    let described = <Options as clap::Parser>::try_parse_from(["gelid"]).unwrap();
    assert_eq!(format!("{nothing:?}"), format!("{described:?}"));
}

#[test]
fn a_dump_as_runtimes_call_it() {
    let dump = invocation(
        "criu dump --tree 12 --images-dir /i --work-dir /w -o dump.log -v4 --shell-job \
         --leave-running --tcp-established --file-locks --manage-cgroups=ignore --ghost-limit 8M \
         --external mnt[/etc/hosts]:hosts --external dev[8/1]:sda --freeze-cgroup /f --timeout 30",
    )
    .unwrap();
    assert_eq!(dump.command, Command::Dump);
    assert_eq!(dump.options.general.tree, Some(12));
    assert_eq!(dump.options.general.timeout, 30);
    assert_eq!(dump.options.files.ghost_limit, Some(8 << 20));
    assert_eq!(dump.options.files.external.len(), 2);
    assert_eq!(dump.verbosity(), 4);
    assert!(dump.options.tasks.shell_job && dump.options.tasks.leave_running);
    assert_eq!(dump.compression(), Compression::None);
}

#[test]
fn defaults_depend_on_the_name() {
    let gelid = invocation("/usr/bin/gelid dump -t 1").unwrap();
    assert_eq!(gelid.compression(), Compression::DEFAULT);
    assert_eq!(gelid.verbosity(), 2);
    assert_eq!(gelid.options.general.images_dir, Path::new("."));
    let plain = invocation("gelid dump --no-default-config -t 1").unwrap();
    assert_eq!(plain.compression(), Compression::None);
    let packed = invocation("gelid dump --no-default-config -t 1 --compress=zstd").unwrap();
    assert_eq!(packed.compression(), Compression::DEFAULT);
    let criu = invocation("/usr/bin/criu dump -t 1 --compress=zstd:3").unwrap();
    assert_eq!(criu.compression(), Compression::Zstd { level: Some(3) });
    assert_eq!(
        invocation("criu show x").unwrap().command,
        Command::Removed("show", "crit decode -i FILE --pretty")
    );
    assert_eq!(invocation("gelid show x").unwrap().command, Command::Show);
}

#[test]
fn flags_are_negated_by_the_last_word() {
    let shell_job = |line: &str| invocation(line).unwrap().options.tasks.shell_job;
    assert!(!shell_job("gelid restore -j --no-shell-job"));
    assert!(shell_job("gelid restore --no-shell-job -j"));
    let detached = |line: &str| invocation(line).unwrap().options.tasks.restore_detached;
    assert!(!detached("gelid restore -d --no-daemon"));
    assert!(!detached("gelid restore --daemon --no-restore-detached"));
    assert!(detached("gelid restore --no-daemon --restore-detached"));
    assert!(
        !invocation("gelid dump -t 1 --ghost-fiemap --no-ghost-fiemap")
            .unwrap()
            .options
            .files
            .ghost_fiemap
    );
}

#[test]
fn the_last_value_counts() {
    let restore = invocation("gelid restore -D a --images-dir=b -D c").unwrap();
    assert_eq!(restore.options.general.images_dir, Path::new("c"));
}

#[test]
fn help_and_version_come_first() {
    for line in ["gelid -h", "gelid dump --nonsense --help", "gelid --h"] {
        assert_eq!(invocation(line).unwrap_err(), Stop::Help, "{line}");
    }
    for line in ["gelid -V", "gelid --version --nonsense", "criu dump --vers"] {
        assert_eq!(invocation(line).unwrap_err(), Stop::Version, "{line}");
    }
    assert_eq!(invocation("gelid").unwrap_err(), Stop::Usage(None));
}

#[test]
fn the_test_driver_calls_it_so() {
    let check = invocation("criu check --no-default-config -verbosity=0 --feature mnt_id").unwrap();
    assert_eq!(check.verbosity(), 0);
    assert_eq!(check.options.check.feature.as_deref(), Some("mnt_id"));
}

#[test]
fn nonsense_is_refused() {
    for (line, words) in [
        ("gelid frobnicate", "unknown command"),
        ("gelid -R", "command is required"),
        ("gelid dump", "pid not specified"),
        ("gelid dump -t 0", "invalid argument"),
        ("gelid dump -t 1 extra", "excessive parameter"),
        ("gelid dump -t 1 --network-lock=ipchains", "ipchains"),
        (
            "gelid dump -t 1 --inherit-fd fd[0]:x",
            "--inherit-fd is only for restore",
        ),
        ("gelid dump -t 1 --dry-run", "--dry-run is only for restore"),
        ("gelid dump -t 1 --external mnt[]:x", "unknown letter"),
        ("gelid restore -S", "--restore-sibling"),
        ("gelid restore --exec-cmd", "--exec-cmd requires"),
        ("gelid restore --inherit-fd fd[987]:x", "is not open"),
        (
            "gelid restore --inherit-fd 987",
            "Invalid inherit fd argument",
        ),
        ("gelid restore -J disk:1", "not a kind of namespace"),
        ("gelid restore -J user:", "not a kind of namespace"),
        ("gelid restore -J user:1,x", "not a user and a group"),
        ("gelid restore -J user:1,0,65536", "not a user and a group"),
        ("gelid dump -t 1 --compress=lz4", "zstd"),
        (
            "gelid dump -t 1 --dedup-content --compress=none",
            "--dedup-content needs packed pages",
        ),
        ("criu dump -t 1 --dedup-content", "--dedup-content needs"),
        ("criu dump -t 1 --prev-images-dir ../1", "--dedup-content"),
        ("gelid restore --prev-images-dir ../1", "--dedup-content"),
        (
            "gelid dump -t 1 --lazy-pages",
            "--lazy-pages: memory does not travel yet",
        ),
        ("gelid cpuinfo", "cpuinfo requires an action"),
        ("gelid cpuinfo burn", "cpuinfo requires an action"),
    ] {
        let said = refused(line);
        assert!(said.contains(words), "{line}: {said}");
    }
}

#[test]
fn users_of_others_may_be_told() {
    for line in ["user:1", "user:/proc/1/ns/user,0", "user:1,7,9", "net:/x,y"] {
        invocation(&format!("gelid restore --join-ns {line}")).unwrap();
    }
    assert_eq!(user_and_group("7"), Some((7, 7)));
    assert_eq!(user_and_group("7,9"), Some((7, 9)));
    assert_eq!(user_and_group("-1"), None);
}

#[test]
fn words_behind_two_dashes_are_the_program() {
    let restore = invocation("gelid restore --exec-cmd -- prog -v --tree").unwrap();
    assert_eq!(restore.words, ["prog", "-v", "--tree"].map(OsString::from));
}

#[test]
fn every_option_of_the_help_is_known() {
    let help = help();
    for name in [
        "--tree",
        "--compress",
        "--dry-run",
        "--manage-cgroups",
        "--external",
    ] {
        assert!(help.contains(name), "{name}");
    }
    assert!(!help.contains("--no-shell-job"));
}
