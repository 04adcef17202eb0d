//! `cgroup.img`: all cgroup sets and hierarchies of the tree. Section 22.1 of the format.

messages! {
    /// Mode and owner of a cgroup directory or property. Section 22.1.
    message CgroupPerms = "cgroup_perms" {
        /// Mode, `st_mode`.
        required uint32 mode = 1;
        /// User id.
        required uint32 uid = 2;
        /// Group id.
        required uint32 gid = 3;
    }

    /// A property (control file) of a cgroup. Section 22.1.
    message CgroupPropEntry = "cgroup_prop_entry" {
        /// File name of the property.
        required string name = 1;
        /// Text without the final newline.
        required text value = 2;
        /// Mode and owner of the file.
        optional message CgroupPerms perms = 3;
    }

    /// A cgroup directory with its properties and subdirectories. Section 22.1.
    message CgroupDirEntry = "cgroup_dir_entry" {
        /// Top level: path without leading slash, empty for the root. Children: relative to the
        /// parent.
        required text dir_name = 1;
        /// Directories below.
        repeated message CgroupDirEntry children = 2;
        /// Properties in the order of the format.
        repeated message CgroupPropEntry properties = 3;
        /// Mode and owner of the directory.
        optional message CgroupPerms dir_perms = 4;
    }

    /// A cgroup hierarchy: its co-mounted controllers and directories. Section 22.1.
    message CgControllerEntry = "cg_controller_entry" {
        /// Co-mounted controllers; `name=…` for named hierarchies, one empty string for v2.
        repeated string cnames = 1;
        /// Groups the tasks are in.
        repeated message CgroupDirEntry dirs = 2;
        /// True for v1, and for v2 if a dumped group has type "threaded".
        optional bool is_threaded = 3;
    }

    /// The cgroup of one hierarchy that a set names. Section 22.1.
    message CgMemberEntry = "cg_member_entry" {
        /// Controller list; empty for v2.
        required string name = 1;
        /// Path of the group in the hierarchy.
        required text path = 2;
        /// Length of the leading part of `path` that is the root of the task's cgroup namespace.
        optional uint32 cgns_prefix = 3;
    }

    /// A distinct combination of cgroups that some thread is in. Section 22.1.
    message CgSetEntry = "cg_set_entry" {
        /// Set id (section 4.5); 1 is the dumper's own and not listed.
        required uint32 id = 1;
        /// One member per hierarchy, sorted by name.
        repeated message CgMemberEntry ctls = 2;
    }

    /// `cgroup.img`: all cgroup sets and hierarchies of the tree. Section 22.1.
    message CgroupEntry = "cgroup_entry" {
        /// Distinct combinations of cgroups.
        repeated message CgSetEntry sets = 1;
        /// Hierarchies.
        repeated message CgControllerEntry controllers = 2;
    }
}
