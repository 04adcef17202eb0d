//! Memory protection keys, `pkeys(7)`.

use gelid_sys::proc::maps::Perms;
use gelid_sys::proc::smaps::Area;

/// The key that the kernel has given to memory that can only be executed.
pub(crate) fn execute_only(areas: &[Area]) -> Option<u32> {
    let mut keyed = areas.iter().filter(|area| area.protection_key != 0);
    keyed
        .find(|area| is_execute_only(area))
        .map(|area| area.protection_key)
}

/// Whether a mapping has a key that the program itself has given to it.
pub(crate) fn is_refused(area: &Area) -> bool {
    area.protection_key != 0 && !is_execute_only(area)
}

fn is_execute_only(area: &Area) -> bool {
    let all = Perms::READ | Perms::WRITE | Perms::EXEC;
    area.map.perms & all == Perms::EXEC
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_sys::proc::smaps;

    #[test]
    fn the_key_of_memory_that_can_only_be_executed_is_found() {
        let text = "1000-2000 --xp 0 00:00 0 \nProtectionKey: 0\nVmFlags: ex mr mw me \n\
            2000-3000 rw-p 0 00:00 0 \nProtectionKey: 2\nVmFlags: rd wr mr mw me ac \n\
            3000-4000 --xp 0 00:00 0 \nProtectionKey: 3\nVmFlags: ex mr mw me \n";
        let areas = smaps::parse(text.as_bytes()).unwrap();
        assert_eq!(execute_only(&areas), Some(3));
        let refused: Vec<bool> = areas.iter().map(is_refused).collect();
        assert_eq!(refused, [false, true, false]);
    }
}
