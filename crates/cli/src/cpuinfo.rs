//! `cpuinfo.img`: what the processor of a dump is and can do, and whether this one can do as much.

use anyhow::{Context, bail};
use gelid_image::messages::{CpuinfoEntry, CpuinfoX86Entry, CpuinfoX86Vendor};
use gelid_image::{Dir, ImageKind};
use gelid_sys::arch::{CPU_WORDS, Processor};

use crate::args::CpuCap;

/// How the words are numbered.
const VERSION: u32 = 2;

/// Components of the extended state that CRIU writes down: it takes SSE for a part of the first.
const XFEATURES: u64 = !2;

/// The words with bits of instructions.
const INSTRUCTIONS: [usize; 8] = [0, 1, 4, 6, 9, 10, 11, 18];

/// Bits among those that are about the machine and not about instructions: in word 4, that there is a hypervisor.
const NOT_INSTRUCTIONS: [(usize, u32); 1] = [(4, 1 << 31)];

/// Bits without which no state of floating point is restored, with their names.
const FLOATING_POINT: [(usize, u32, &str); 4] = [
    (0, 1, "fpu"),
    (0, 1 << 24, "fxsr"),
    (4, 1 << 27, "osxsave"),
    (10, 1 << 3, "xsaves"),
];

/// Writes the image.
pub(crate) fn write(images: &Dir) -> anyhow::Result<()> {
    let entry = CpuinfoEntry {
        x86_entry: vec![entry(&Processor::look())],
        ..CpuinfoEntry::default()
    };
    images.store(ImageKind::Cpuinfo, (), &entry)?;
    Ok(())
}

/// Compares the image with this processor, as far as `wanted` says.
pub(crate) fn check(images: &Dir, wanted: CpuCap) -> anyhow::Result<()> {
    let entries = images.read_all::<CpuinfoEntry>(ImageKind::Cpuinfo, ())?;
    let image = entries.first().and_then(|entry| entry.x86_entry.first());
    let image = image.context(
        "there is no cpuinfo.img of an x86 processor: dump with --cpu-cap, or by cpuinfo dump",
    )?;
    if image.capability_ver != VERSION || image.capability.len() != CPU_WORDS {
        bail!(
            "cpuinfo.img: version {} with {} words of features is unknown",
            image.capability_ver,
            image.capability.len()
        );
    }
    let here = entry(&Processor::look());
    if wanted.has_floating_point() {
        floating_point(image, &here)?;
    }
    if wanted.has_instructions() {
        instructions(image, &here)?;
    }
    if wanted.has_all() && image.capability != here.capability {
        bail!("the processor of the dump is another one; --cpu-cap=ins asks for instructions only");
    }
    Ok(())
}

fn entry(processor: &Processor) -> CpuinfoX86Entry {
    let vendor = match processor.vendor.as_str() {
        "GenuineIntel" => CpuinfoX86Vendor::Intel,
        "AuthenticAMD" => CpuinfoX86Vendor::Amd,
        _ => CpuinfoX86Vendor::Unknown,
    };
    CpuinfoX86Entry {
        vendor_id: vendor.into(),
        cpu_family: processor.family,
        model: processor.model,
        stepping: processor.stepping,
        capability_ver: VERSION,
        capability: processor.words.to_vec(),
        model_id: Some(processor.brand.clone()),
        xfeatures_mask: Some(processor.xfeatures & XFEATURES),
        xsave_size: Some(processor.xsave_size),
        xsave_size_max: Some(processor.xsave_size_max),
    }
}

fn floating_point(image: &CpuinfoX86Entry, here: &CpuinfoX86Entry) -> anyhow::Result<()> {
    for (word, bit, name) in FLOATING_POINT {
        if image.capability[word] & bit != 0 && here.capability[word] & bit == 0 {
            bail!("this processor has no {name}, which that of the dump has");
        }
    }
    let components = |entry: &CpuinfoX86Entry| entry.xfeatures_mask.unwrap_or(0) & XFEATURES;
    let missing = components(image) & !components(here);
    if missing != 0 {
        bail!("this processor lacks components {missing:#x} of extended state");
    }
    let sizes = |entry: &CpuinfoX86Entry| (entry.xsave_size, entry.xsave_size_max);
    if sizes(image) != sizes(here) {
        bail!(
            "extended state takes {:?} bytes here and {:?} at the dump",
            here.xsave_size,
            image.xsave_size
        );
    }
    Ok(())
}

fn instructions(image: &CpuinfoX86Entry, here: &CpuinfoX86Entry) -> anyhow::Result<()> {
    for word in INSTRUCTIONS {
        let other = NOT_INSTRUCTIONS.iter().filter(|(of, _)| *of == word);
        let other = other.fold(0, |bits, (_, bit)| bits | bit);
        let missing = image.capability[word] & !here.capability[word] & !other;
        if missing != 0 {
            bail!(
                "this processor lacks instructions of the dump: bits {missing:#x} of word {word}"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_enough_and_more_is_not() {
        let here = entry(&Processor::look());
        let mut image = here.clone();
        assert!(instructions(&image, &here).is_ok() && floating_point(&image, &here).is_ok());
        image.capability[9] = 0;
        assert!(instructions(&image, &here).is_ok());
        let missing = here.capability[9].trailing_ones();
        image.capability[9] = 1 << missing;
        assert!(instructions(&image, &here).is_err());
        image.xsave_size = Some(1);
        assert!(floating_point(&image, &here).is_err());
    }
}
