//! Structures compared with those of the kernel's headers, which `linux-raw-sys` holds, while the tests are
//! compiled.

/// Fails to compile unless the fields of both structures lie at the same offsets. With `whole` the sizes must
/// be the same too; without, the kernel's structure may have grown behind the fields.
macro_rules! same {
    (whole $ours:ty, $theirs:ty { $($fields:tt)* }) => {
        const _: () = assert!(size_of::<$ours>() == size_of::<$theirs>());
        $crate::layout::same!($ours, $theirs { $($fields)* });
    };
    ($ours:ty, $theirs:ty { $($our:ident = $their:ident),* $(,)? }) => {
        const _: () = {
            $(assert!(std::mem::offset_of!($ours, $our) == std::mem::offset_of!($theirs, $their));)*
        };
    };
    ($ours:ty, $theirs:ty { $($field:ident),* $(,)? }) => {
        $crate::layout::same!($ours, $theirs { $($field = $field),* });
    };
}

pub(crate) use same;
