//! What this processor is and can do: `cpuid`.

use super::cpuid;

/// Words of feature bits, in the order of the kernel's `cpufeatures.h` of 2017.
pub const CPU_WORDS: usize = 19;

/// A processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor {
    /// Twelve letters, such as `AuthenticAMD`.
    pub vendor: String,
    /// Family, extended part included.
    pub family: u32,
    /// Model, extended part included.
    pub model: u32,
    /// Stepping.
    pub stepping: u32,
    /// Feature bits.
    pub words: [u32; CPU_WORDS],
    /// The brand, as text.
    pub brand: String,
    /// Components of the extended state that the kernel uses.
    pub xfeatures: u64,
    /// Bytes that they take.
    pub xsave_size: u32,
    /// Bytes that all components take that the processor has.
    pub xsave_size_max: u32,
}

impl Processor {
    /// The place of the word of each leaf that has feature bits: leaf, sub-leaf, register, word.
    const LEAVES: [(u32, u32, usize, usize); 12] = [
        (1, 0, 3, 0),
        (0x8000_0001, 0, 3, 1),
        (1, 0, 2, 4),
        (0x8000_0001, 0, 2, 6),
        (7, 0, 1, 9),
        (0xd, 1, 0, 10),
        (7, 0, 2, 11),
        (0x8000_0008, 0, 1, 13),
        (6, 0, 0, 14),
        (0x8000_000a, 0, 3, 15),
        (0x8000_0007, 0, 1, 17),
        (7, 0, 3, 18),
    ];

    /// Bits of word 3, which is the kernel's own: what `/proc/cpuinfo` calls them.
    const OWN: [(&str, u32); 3] = [("rep_good", 16), ("nopl", 20), ("cpuid", 25)];

    /// Asks the processor that this runs on.
    #[must_use]
    pub fn look() -> Self {
        let (highest, b, c, d) = cpuid(0, 0);
        let extended = cpuid(0x8000_0000, 0).0;
        let has = |leaf: u32| match leaf {
            0x8000_0000.. => leaf <= extended,
            _ => leaf <= highest,
        };
        let mut words = [0; CPU_WORDS];
        for (leaf, sub, register, word) in Self::LEAVES {
            if has(leaf) {
                let (a, b, c, d) = cpuid(leaf, sub);
                words[word] = [a, b, c, d][register];
            }
        }
        words[3] = kernels_own();
        let signature = cpuid(1, 0).0;
        let family = signature >> 8 & 0xf;
        let model = signature >> 4 & 0xf;
        let is_extended = family == 0xf || family == 6;
        let state = if has(0xd) {
            cpuid(0xd, 0)
        } else {
            (0, 0, 0, 0)
        };
        Self {
            vendor: text(&[b, d, c]),
            family: if family == 0xf {
                family + (signature >> 20 & 0xff)
            } else {
                family
            },
            model: if is_extended {
                model | signature >> 12 & 0xf0
            } else {
                model
            },
            stepping: signature & 0xf,
            words,
            brand: if has(0x8000_0004) {
                brand()
            } else {
                String::new()
            },
            xfeatures: super::xstate_supported(),
            xsave_size: state.1,
            xsave_size_max: state.2,
        }
    }
}

fn kernels_own() -> u32 {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = info
        .lines()
        .find_map(|line| line.strip_prefix("flags"))
        .unwrap_or_default();
    let named = |name: &str| flags.split_whitespace().any(|flag| flag == name);
    let set = Processor::OWN.iter().filter(|(name, _)| named(name));
    set.fold(0, |word, (_, bit)| word | 1 << bit)
}

fn brand() -> String {
    let registers = (0x8000_0002..=0x8000_0004_u32).flat_map(|leaf| {
        let (a, b, c, d) = cpuid(leaf, 0);
        [a, b, c, d]
    });
    let brand = text(&registers.collect::<Vec<_>>());
    brand.trim().to_owned()
}

/// What registers spell.
fn text(registers: &[u32]) -> String {
    let bytes: Vec<u8> = registers
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_the_same_processor() {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let field = |name: &str| {
            let line = info
                .lines()
                .find(|line| line.split('\t').next() == Some(name));
            line.and_then(|line| line.split_once(": "))
                .unwrap()
                .1
                .trim()
                .to_owned()
        };
        let here = Processor::look();
        assert_eq!(here.vendor, field("vendor_id"));
        assert_eq!(here.family.to_string(), field("cpu family"));
        assert_eq!(here.model.to_string(), field("model"));
        assert_eq!(here.stepping.to_string(), field("stepping"));
        assert_eq!(here.brand, field("model name"));
        // Every 64-bit processor has FPU, FXSR and SSE2.
        assert_eq!(here.words[0] & 0x0500_0001, 0x0500_0001);
    }
}
