//! `inventory.img`: what is said about the image set as a whole. Section 5 of the format.

use super::TaskKobjIdsEntry;

enumerations! {
    /// Security module of the dumping host.
    enumeration Lsmtype = "lsmtype" {
        /// None.
        NoLsm = 0 "NO_LSM";
        /// SELinux.
        Selinux = 1 "SELINUX";
        /// AppArmor.
        Apparmor = 2 "APPARMOR";
    }
}

messages! {
    /// Names of the plugins that contributed to a dump. Section 5.
    message PluginsEntry = "plugins_entry" {
        /// Names.
        repeated string plugins = 12;
    }

    /// `inventory.img`: what is said about the image set as a whole. Section 5.
    message InventoryEntry = "inventory_entry" {
        /// 2 = layout 1.1, 1 = layout 1.0.
        required uint32 img_version = 1;
        /// True: `fdinfo-*` is keyed by `files_id`. Sets without it are too old and are refused.
        optional bool fdinfo_per_id = 2;
        /// Ids of the dumper process itself: `vm_id`, `files_id`, `fs_id`, `sighand_id` are 1, the
        /// namespace ids are those of 4.2. Restore compares the root task with it.
        optional message TaskKobjIdsEntry root_ids = 3;
        /// True: per-namespace images are keyed by namespace id rather than by pid.
        optional bool ns_per_id = 4;
        /// Cgroup set id of the dumper (1). Tasks with the same id are left in the restorer's own
        /// cgroups. Absent for unprivileged dumps.
        optional uint32 root_cg_set = 5;
        /// [`Lsmtype`] of the host; labels in [`CredsEntry`](super::CredsEntry) belong to it.
        optional enumeration Lsmtype lsmtype = 6;
        /// Host uptime in microseconds at dump. Written only when memory change tracking was
        /// requested. The next incremental dump compares it with a task's start time (in clock
        /// ticks) to detect that a pid has been reused: a task started later than the previous dump
        /// must not reference that dump's pages.
        optional uint64 dump_uptime = 8;
        /// Written by a pre-dump only: 1 = pages spliced by the task itself, 2 = read from outside.
        /// A later dump of the splice kind on top of a read-kind parent must not take pages of
        /// non-readable VMAs from the parent.
        optional uint32 pre_dump_mode = 9;
        /// Connections were dumped closed; restoring needs the same choice.
        optional bool tcp_close = 10;
        /// How connections are blocked between dump and restore: 0 iptables, 1 nftables, 2 none.
        /// Absent means iptables. The restorer must undo with the same method.
        optional uint32 network_lock_method = 11;
        /// Plugins that contributed. Always written, empty when none; absent in old dumps.
        optional message PluginsEntry plugins_entry = 12;
        /// UUID text of the dump run. It makes names unique: the nftables lock table of the run is
        /// named after it.
        optional string dump_criu_run_id = 13;
        /// The tree had uprobes mappings (left out); restoring needs the same permission.
        optional bool allow_uprobes = 14;
        /// gelid: namespaces of tasks that are neither the dumper's nor the root's.
        repeated message GelidNamespaceEntry namespaces = 1000;
        /// gelid: the number given last in the pid namespace of the root (`ns_last_pid`), if it is its own.
        optional uint32 last_pid = 1001;
        /// gelid: `dump_criu_run_id` of the set that `parent` leads to, if pages are left to it.
        optional string parent_run_id = 1002;
    }

    /// A nested namespace. Field 1000 of `inventory_entry`.
    message GelidNamespaceEntry = "gelid_namespace_entry" {
        /// Its number.
        required uint32 id = 1;
        /// Its `CLONE_NEW*` flag.
        required uint32 kind = 2 as hex;
        /// The one above it, of a pid or user namespace, if that is not the root's.
        optional uint32 parent = 3;
        /// The user namespace that it belongs to, if that is not the root's.
        optional uint32 owner = 4;
        /// Of a user namespace, who has made it, as the root's user namespace has it.
        optional uint32 uid = 5;
    }
}
