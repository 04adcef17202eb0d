//! `remap-fpath.img`: the path of a file cannot be used as it is. Section 12.2 of the format.

enumerations! {
    /// What stands in for an unusable path (section 12.2).
    enumeration RemapType = "remap_type" {
        /// `remap_id` is a file id of a link remap.
        Linked = 0 "LINKED";
        /// `remap_id` is a ghost id.
        Ghost = 1 "GHOST";
        /// `remap_id` is the pid of a dead process.
        Procfs = 2 "PROCFS";
    }
}

messages! {
    /// `remap-fpath.img`: the path of a file cannot be used as it is. Section 12.2.
    message RemapFilePathEntry = "remap_file_path_entry" {
        /// File id whose path is remapped.
        required uint32 orig_id = 1;
        /// What stands in for it; meaning by `remap_type`.
        required uint32 remap_id = 2;
        /// [`RemapType`]; absent: bit 31 of `remap_id` set = ghost, else linked.
        optional enumeration RemapType remap_type = 3;
    }
}
