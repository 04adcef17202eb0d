//! `stats-dump`, `stats-restore`: one of the two. Section 23 of the format.

messages! {
    /// Statistics of a dump. Section 23.
    message DumpStatsEntry = "dump_stats_entry" {
        /// Until all tasks were stopped, microseconds.
        required uint32 freezing_time = 1;
        /// How long they stood still, microseconds.
        required uint32 frozen_time = 2;
        /// Collecting memory, microseconds.
        required uint32 memdump_time = 3;
        /// Writing memory, microseconds.
        required uint32 memwrite_time = 4;
        /// Pages looked at.
        required uint64 pages_scanned = 5;
        /// Pages left to the parent.
        required uint64 pages_skipped_parent = 6;
        /// Pages written.
        required uint64 pages_written = 7;
        /// Resolving inotify paths, microseconds.
        optional uint32 irmap_resolve = 8;
        /// Pages that may be fetched later.
        required uint64 pages_lazy = 9;
        /// Page pipes used.
        optional uint64 page_pipes = 10;
        /// Buffers of page pipes used.
        optional uint64 page_pipe_bufs = 11;
        /// Shared pages looked at.
        optional uint64 shpages_scanned = 12;
        /// Shared pages left to the parent.
        optional uint64 shpages_skipped_parent = 13;
        /// Shared pages written.
        optional uint64 shpages_written = 14;
    }

    /// Statistics of a restore. Section 23.
    message RestoreStatsEntry = "restore_stats_entry" {
        /// Pages compared.
        required uint64 pages_compared = 1;
        /// Pages found equal to the parent task's.
        required uint64 pages_skipped_cow = 2;
        /// Creating tasks, microseconds.
        required uint32 forking_time = 3;
        /// Whole restore, microseconds.
        required uint32 restore_time = 4;
        /// Pages restored.
        optional uint64 pages_restored = 5;
    }

    /// `stats-dump`, `stats-restore`: one of the two. Section 23.
    message StatsEntry = "stats_entry" {
        /// Of a dump.
        optional message DumpStatsEntry dump = 1;
        /// Of a restore.
        optional message RestoreStatsEntry restore = 2;
    }
}
