//! `cpuinfo.img`: the processor of the dumping host. Section 23 of the format.

enumerations! {
    /// Vendor of an x86 processor.
    enumeration CpuinfoX86Vendor = "cpuinfo_x86_entry.vendor" {
        /// Unknown.
        Unknown = 0 "UNKNOWN";
        /// Intel.
        Intel = 1 "INTEL";
        /// AMD.
        Amd = 2 "AMD";
    }

    /// Byte order of a ppc64 processor.
    enumeration CpuinfoPpc64Endianness = "cpuinfo_ppc64_entry.endianness" {
        /// Big-endian.
        BigEndian = 0 "BIGENDIAN";
        /// Little-endian.
        LittleEndian = 1 "LITTLEENDIAN";
    }
}

messages! {
    /// An x86 processor, as dumped. Section 23.
    message CpuinfoX86Entry = "cpuinfo_x86_entry" {
        /// [`CpuinfoX86Vendor`].
        required enumeration CpuinfoX86Vendor vendor_id = 1;
        /// Family.
        required uint32 cpu_family = 2;
        /// Model.
        required uint32 model = 3;
        /// Stepping.
        required uint32 stepping = 4;
        /// Version of the capability list: 2.
        required uint32 capability_ver = 5;
        /// 19 words of feature bits.
        repeated uint32 capability = 6;
        /// Brand text.
        optional string model_id = 7;
        /// XSAVE components supported.
        optional uint64 xfeatures_mask = 8;
        /// Size of the XSAVE area in use, bytes.
        optional uint32 xsave_size = 9;
        /// Largest size of the XSAVE area, bytes.
        optional uint32 xsave_size_max = 10;
    }

    /// A ppc64 processor, as dumped. Section 23.
    message CpuinfoPpc64Entry = "cpuinfo_ppc64_entry" {
        /// [`CpuinfoPpc64Endianness`].
        required enumeration CpuinfoPpc64Endianness endian = 1;
        /// Hardware capability words.
        repeated uint64 hwcap = 2;
    }

    /// An s390 processor, as dumped. Section 23.
    message CpuinfoS390Entry = "cpuinfo_s390_entry" {
        /// Hardware capability words.
        repeated uint64 hwcap = 2;
    }

    /// `cpuinfo.img`: the processor of the dumping host. Section 23.
    message CpuinfoEntry = "cpuinfo_entry" {
        /// At most one.
        repeated message CpuinfoX86Entry x86_entry = 1;
        /// At most one.
        repeated message CpuinfoPpc64Entry ppc64_entry = 2;
        /// At most one.
        repeated message CpuinfoS390Entry s390_entry = 3;
    }
}
