//! Floating point and vector registers of a thread: the XSAVE area.

use gelid_image::messages::{UserX86FpregsEntry, UserX86XsaveEntry};
use gelid_sys::arch::{NT_X86_XSTATE, XComponent};
use gelid_sys::ptrace::Stopped;

use super::{Error, Machine};

/// Bytes of the part that all 64-bit processors have (FXSAVE).
const LEGACY: usize = 512;
/// Offset of the mask of components in use, and of all that the kernel saves.
const USED_AT: usize = LEGACY;
const SAVED_AT: usize = 464;
/// Bytes of the header behind the legacy part.
const HEADER: usize = 64;
/// x87 and SSE: the legacy part.
const LEGACY_USED: u64 = 3;
const CET_USER: u32 = 11;
/// The rights to protection keys, and those that the kernel gives to a program: to key 0 alone.
const PKRU: u32 = 9;
const DEFAULT_RIGHTS: u32 = 0x5555_5554;
/// Largest component that is believed.
const LARGEST: usize = 64 << 10;
/// Offset of `mxcsr` and of the mask of its bits that exist.
const MXCSR_AT: usize = 24;
const MXCSR_MASK_AT: usize = 28;

/// A component beyond the legacy part.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Component {
    number: u32,
    bytes: Vec<u8>,
}

/// Everything that an image holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fpu {
    legacy: Box<[u8; LEGACY]>,
    /// Those in use.
    components: Vec<Component>,
    /// Rights to protection keys, if the image is of a machine that has some.
    rights: Option<u32>,
}

impl Fpu {
    pub(super) fn read(tid: i32, entry: &UserX86FpregsEntry) -> Result<Self, Error> {
        let legacy = legacy(entry).ok_or(Error::Wrong {
            tid,
            what: "the floating point registers are not whole",
        })?;
        let (mut components, mut rights) = (Vec::new(), None);
        if let Some(xsave) = &entry.xsave {
            let is_used = xsave.xstate_bv & 1 << PKRU != 0;
            rights = xsave
                .pkru
                .first()
                .map(|word| if is_used { *word } else { 0 });
            components = found(xsave).ok_or(Error::Wrong {
                tid,
                what: "the vector registers are not whole",
            })?;
            if xsave.xstate_bv & 1 << CET_USER != 0
                && xsave.cet.as_ref().is_some_and(|cet| cet.cet != 0)
            {
                return Err(Error::Unsupported {
                    tid,
                    what: "a shadow stack",
                    remedy: "start the program with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off",
                });
            }
        }
        Ok(Self {
            legacy,
            components,
            rights,
        })
    }

    /// Every component in use has to be there.
    pub(super) fn check(&self, tid: i32, machine: &Machine) -> Result<(), Error> {
        let lacks = |component: &&Component| machine.xstate.component(component.number).is_none();
        match self.components.iter().find(lacks) {
            Some(component) => Err(Error::Processor {
                tid,
                component: name(component.number),
            }),
            None => Ok(()),
        }
    }

    /// Sets them. The layout is that of the area which the first thread had: what the kernel tells about it is the same
    /// for all, and of its registers none is left.
    pub(super) fn set(&self, tid: i32, task: &Stopped, machine: &Machine) -> Result<(), Error> {
        let failed = |operation| {
            move |errno| Error::Thread {
                operation,
                tid,
                errno,
            }
        };
        let mut area = match machine.area.get() {
            Some(area) => area.clone(),
            None => {
                let mut area = Vec::with_capacity(machine.xstate.end());
                task.regset(NT_X86_XSTATE, &mut area)
                    .map_err(failed("reading the vector registers"))?;
                machine.area.get_or_init(|| area).clone()
            }
        };
        self.fill(&mut area, |number| machine.xstate.component(number))
            .map_err(|component| Error::Processor { tid, component })?;
        task.set_regset(NT_X86_XSTATE, &area)
            .map_err(failed("setting the vector registers"))
    }

    /// Fills an area of this processor, or tells what it has no place for.
    fn fill(
        &self,
        area: &mut [u8],
        place: impl Fn(u32) -> Option<XComponent>,
    ) -> Result<(), String> {
        if area.len() < LEGACY + HEADER {
            return Err(name(0));
        }
        let (mxcsr, known) = (word(&self.legacy[..], MXCSR_AT), word(area, MXCSR_MASK_AT));
        // A mask of 0 stands for that of the first processors with SSE.
        let known = if known == 0 { 0xffbf } else { known };
        if mxcsr & !known != 0 {
            return Err(format!("bits of mxcsr ({:#x})", mxcsr & !known));
        }
        let saved = u64::from(word(area, SAVED_AT)) | u64::from(word(area, SAVED_AT + 4)) << 32;
        // Behind the registers lies what the kernel tells about the area.
        area[..MXCSR_MASK_AT].copy_from_slice(&self.legacy[..MXCSR_MASK_AT]);
        area[32..416].copy_from_slice(&self.legacy[32..416]);
        let mut used = LEGACY_USED;
        for component in &self.components {
            let missing = || name(component.number);
            if saved & 1 << component.number == 0 {
                return Err(missing());
            }
            let place = place(component.number).ok_or_else(missing)?;
            if place.size != component.bytes.len() {
                return Err(missing());
            }
            let slot = area.get_mut(place.offset..place.offset + place.size);
            slot.ok_or_else(missing)?.copy_from_slice(&component.bytes);
            used |= 1 << component.number;
        }
        if saved & 1 << PKRU != 0
            && let Some(place) = place(PKRU)
            && let Some(slot) = area.get_mut(place.offset..place.offset + 4)
        {
            let rights = self.rights.unwrap_or(DEFAULT_RIGHTS);
            slot.copy_from_slice(&rights.to_le_bytes());
            used |= 1 << PKRU;
        }
        area[USED_AT..USED_AT + HEADER].fill(0);
        area[USED_AT..USED_AT + 8].copy_from_slice(&used.to_le_bytes());
        Ok(())
    }
}

fn word(area: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&area[at..at + 4]);
    u32::from_le_bytes(bytes)
}

/// The legacy part, as the processor stores it.
fn legacy(entry: &UserX86FpregsEntry) -> Option<Box<[u8; LEGACY]>> {
    let mut area = Box::new([0; LEGACY]);
    let half = |value: u32| u16::try_from(value).ok().map(u16::to_le_bytes);
    area[0..2].copy_from_slice(&half(entry.cwd)?);
    area[2..4].copy_from_slice(&half(entry.swd)?);
    area[4..6].copy_from_slice(&half(entry.twd)?);
    area[6..8].copy_from_slice(&half(entry.fop)?);
    area[8..16].copy_from_slice(&entry.rip.to_le_bytes());
    area[16..24].copy_from_slice(&entry.rdp.to_le_bytes());
    area[24..28].copy_from_slice(&entry.mxcsr.to_le_bytes());
    area[28..32].copy_from_slice(&entry.mxcsr_mask.to_le_bytes());
    let mut put = |at: usize, words: &[u32], count: usize| {
        let (slots, _) = area[at..at + count * 4].as_chunks_mut();
        (words.len() == count).then(|| {
            for (slot, word) in slots.iter_mut().zip(words) {
                *slot = word.to_le_bytes();
            }
        })
    };
    put(32, &entry.st_space, 32)?;
    put(160, &entry.xmm_space, 64)?;
    Some(area)
}

fn bytes32(words: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(words.len() * 4);
    for word in words {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn bytes64(words: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(words.len() * 8);
    for word in words {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// The components in use that the image has; an empty one was not there when it was made. `None` if one
/// has not the size that it must have.
fn found(xsave: &UserX86XsaveEntry) -> Option<Vec<Component>> {
    let is_used = |number: u32| xsave.xstate_bv & 1 << number != 0;
    let wide = [
        (3, &xsave.bndreg_state, 8),
        (4, &xsave.bndcsr_state, 8),
        (5, &xsave.opmask_reg, 8),
        (6, &xsave.zmm_upper, 64),
        (7, &xsave.hi16_zmm, 128),
    ];
    if ![0, 2].contains(&xsave.pkru.len()) || ![0, 64].contains(&xsave.ymmh_space.len()) {
        return None;
    }
    let mut all = Vec::new();
    if !xsave.ymmh_space.is_empty() && is_used(2) {
        let bytes = bytes32(&xsave.ymmh_space);
        all.push(Component { number: 2, bytes });
    }
    for (number, words, count) in wide {
        match words.len() {
            0 => {}
            len if len == count && is_used(number) => all.push(Component {
                number,
                bytes: bytes64(words),
            }),
            len if len == count => {}
            _ => return None,
        }
    }
    for entry in &xsave.gelid {
        let taken = all.iter().any(|other| other.number == entry.component);
        if !(10..63).contains(&entry.component) || entry.state.len() > LARGEST || taken {
            return None;
        }
        all.push(Component {
            number: entry.component,
            bytes: entry.state.clone(),
        });
    }
    all.retain(|component| xsave.xstate_bv & 1 << component.number != 0);
    Some(all)
}

fn name(number: u32) -> String {
    match number {
        0 => "XSAVE".into(),
        2 => "AVX".into(),
        3 | 4 => "MPX".into(),
        5..=7 => "AVX-512".into(),
        17 | 18 => "AMX".into(),
        19 => "APX".into(),
        number => format!("component {number} of the extended state"),
    }
}

#[cfg(test)]
mod tests {
    use gelid_image::messages::GelidXsaveEntry;

    use super::*;

    fn entry() -> UserX86FpregsEntry {
        UserX86FpregsEntry {
            cwd: 0x37f,
            mxcsr: 0x1f80,
            st_space: (0..32).collect(),
            xmm_space: (100..164).collect(),
            xsave: Some(UserX86XsaveEntry {
                xstate_bv: 0b111,
                ymmh_space: (200..264).collect(),
                opmask_reg: vec![9; 8],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn place(number: u32) -> Option<XComponent> {
        (number == 2).then_some(XComponent {
            offset: 600,
            size: 256,
        })
    }

    #[test]
    fn registers_come_where_this_processor_has_them() {
        let fpu = Fpu::read(1, &entry()).unwrap();
        assert_eq!(fpu.components.len(), 1, "what is not in use is left out");
        let mut area = vec![0; 900];
        area[SAVED_AT] = 7;
        area[USED_AT + 9] = 1;
        fpu.fill(&mut area, place).unwrap();
        assert_eq!(word(&area, 0), 0x37f);
        assert_eq!(word(&area, 32 + 4), 1);
        assert_eq!(word(&area, 160), 100);
        assert_eq!(word(&area, 600), 200);
        assert_eq!((word(&area, USED_AT), word(&area, USED_AT + 8)), (7, 0));
        // Rights are those of the image, where there are keys, or the usual ones.
        let place = |number| match number {
            PKRU => Some(XComponent {
                offset: 880,
                size: 8,
            }),
            number => place(number),
        };
        area[SAVED_AT + 1] = 2;
        for (pkru, used, rights) in [
            (vec![], 7, DEFAULT_RIGHTS),
            (vec![5, 0], 7, 0),
            (vec![5, 0], 0x207, 5),
        ] {
            let mut entry = entry();
            let xsave = entry.xsave.as_mut().unwrap();
            (xsave.pkru, xsave.xstate_bv) = (pkru, used);
            Fpu::read(1, &entry)
                .unwrap()
                .fill(&mut area, place)
                .unwrap();
            assert_eq!((word(&area, 880), word(&area, USED_AT)), (rights, 0x207));
        }
        area[SAVED_AT + 1] = 0;
        area[SAVED_AT] = 3;
        assert_eq!(fpu.fill(&mut area, place), Err("AVX".into()));
    }

    #[test]
    fn odd_sizes_are_refused() {
        let cases: [fn(&mut UserX86FpregsEntry); 6] = [
            |entry| entry.xsave.as_mut().unwrap().pkru = vec![1],
            |entry| entry.cwd = 1 << 16,
            |entry| entry.st_space.truncate(31),
            |entry| entry.xmm_space.push(1),
            |entry| entry.xsave.as_mut().unwrap().ymmh_space.truncate(63),
            |entry| {
                let state = vec![0; 8];
                let own = GelidXsaveEntry {
                    component: 2,
                    state,
                };
                entry.xsave.as_mut().unwrap().gelid.push(own);
            },
        ];
        for spoil in cases {
            let mut entry = entry();
            spoil(&mut entry);
            assert!(Fpu::read(1, &entry).is_err());
        }
    }

    #[test]
    fn a_lacking_component_is_named() {
        let machine = Machine::look().unwrap();
        let mut fpu = Fpu::read(8, &entry()).unwrap();
        fpu.components[0].number = 62;
        let error = fpu.check(8, &machine).unwrap_err();
        assert!(error.to_string().contains("component 62"), "{error}");
    }
}
