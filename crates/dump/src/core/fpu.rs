//! Floating point and vector registers of a thread: the XSAVE area, cut into the fields of images.

use gelid_image::messages::{GelidXsaveEntry, UserX86FpregsEntry, UserX86XsaveEntry};
use gelid_sys::arch::{NT_X86_XSTATE, XComponent, XLayout};
use gelid_sys::ptrace::Stopped;

use super::Error;

/// Bytes of the part that all 64-bit processors have (FXSAVE).
const LEGACY: usize = 512;
/// Offset of the mask of components in use, and of all that the kernel saves.
const USED_AT: usize = LEGACY;
const SAVED_AT: usize = 464;
/// Bytes of the header behind the legacy part.
const HEADER: usize = 64;
/// Components that have a field of their own.
const KNOWN: u64 = 0b10_1111_1111;
const NT_X86_SHSTK: u32 = 0x204;
/// The rights to protection keys.
const PKRU: u32 = 9;

/// Reads the registers of one thread after the other.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    layout: &'a XLayout,
    area: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(layout: &'a XLayout) -> Self {
        Self {
            area: Vec::with_capacity(layout.end()),
            layout,
        }
    }

    /// The registers of a stopped thread.
    pub(super) fn read(&mut self, task: &Stopped) -> Result<UserX86FpregsEntry, Error> {
        let tid = task.pid();
        let read = task.regset(NT_X86_XSTATE, &mut self.area);
        let failed = |errno| Error::Thread {
            tid,
            object: "the vector registers",
            errno,
        };
        read.map_err(failed)?;
        record(&self.area, |number| self.layout.component(number)).ok_or(Error::Unsupported {
            tid,
            what: "a processor without XSAVE",
            remedy: "dump on a 64-bit machine made since 2008",
        })
    }
}

/// Whether a thread has a shadow stack.
pub(super) fn has_shadow_stack(task: &Stopped) -> bool {
    let mut pointer = Vec::with_capacity(8);
    task.regset(NT_X86_SHSTK, &mut pointer).is_ok()
}

/// Cuts an area into fields; `None` if it is too short.
fn record(area: &[u8], place: impl Fn(u32) -> Option<XComponent>) -> Option<UserX86FpregsEntry> {
    if area.len() < LEGACY + HEADER {
        return None;
    }
    let half = |at: usize| u32::from(u16::from_le_bytes([area[at], area[at + 1]]));
    Some(UserX86FpregsEntry {
        cwd: half(0),
        swd: half(2),
        twd: half(4),
        fop: half(6),
        rip: words64(&area[8..16])[0],
        rdp: words64(&area[16..24])[0],
        mxcsr: words32(&area[24..28])[0],
        mxcsr_mask: words32(&area[28..32])[0],
        st_space: words32(&area[32..160]),
        xmm_space: words32(&area[160..416]),
        padding: Vec::new(),
        xsave: Some(extended(area, place)),
    })
}

fn extended(area: &[u8], place: impl Fn(u32) -> Option<XComponent>) -> UserX86XsaveEntry {
    let saved = words64(&area[SAVED_AT..SAVED_AT + 8])[0];
    let used = words64(&area[USED_AT..USED_AT + 8])[0];
    let bytes = |number: u32| -> &[u8] {
        let has = saved & 1 << number != 0;
        let place = has.then(|| place(number)).flatten();
        let found = place.and_then(|place| area.get(place.offset..place.offset + place.size));
        found.unwrap_or_default()
    };
    // A component is as long as the processor has it, padding included, and a field as its registers are.
    let whole = |number: u32, len: usize| bytes(number).get(..len).unwrap_or_default();
    // What a thread has of its own accord may not count as in use.
    let used = used | u64::from(bytes(PKRU).iter().any(|byte| *byte != 0)) << PKRU;
    let others = (2..63).filter(|number| used & !KNOWN & 1 << number != 0);
    UserX86XsaveEntry {
        xstate_bv: used,
        ymmh_space: words32(whole(2, 256)),
        bndreg_state: words64(whole(3, 64)),
        bndcsr_state: words64(whole(4, 64)),
        opmask_reg: words64(whole(5, 64)),
        zmm_upper: words64(whole(6, 512)),
        hi16_zmm: words64(whole(7, 1024)),
        pkru: words32(whole(PKRU, 8)),
        cet: None,
        gelid: others
            .map(|component| GelidXsaveEntry {
                component,
                state: bytes(component).to_vec(),
            })
            .collect(),
    }
}

fn words32(bytes: &[u8]) -> Vec<u32> {
    let (words, _) = bytes.as_chunks();
    words.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

fn words64(bytes: &[u8]) -> Vec<u64> {
    let (words, _) = bytes.as_chunks();
    words.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_come_from_where_the_processor_has_them() {
        let mut area = vec![0; 1200];
        area[0] = 0x7f;
        area[32] = 1;
        area[160] = 2;
        area[SAVED_AT] = 7;
        area[SAVED_AT + 2] = 2; // 17
        area[USED_AT] = 4;
        area[USED_AT + 2] = 2;
        area[700] = 9;
        area[1100] = 8;
        let place = |number| match number {
            2 => Some(XComponent {
                offset: 700,
                size: 256,
            }),
            17 => Some(XComponent {
                offset: 1100,
                size: 64,
            }),
            _ => None,
        };
        let entry = record(&area, place).unwrap();
        assert_eq!(
            (entry.cwd, entry.st_space[0], entry.xmm_space[0]),
            (0x7f, 1, 2)
        );
        let xsave = entry.xsave.unwrap();
        assert_eq!((xsave.ymmh_space.len(), xsave.ymmh_space[0]), (64, 9));
        assert!(xsave.zmm_upper.is_empty());
        assert_eq!(xsave.gelid.len(), 1);
        assert_eq!((xsave.gelid[0].component, xsave.gelid[0].state[0]), (17, 8));
        assert!(record(&area[..500], place).is_none());
    }
}
