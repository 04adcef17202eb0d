//! Work on many images, shared by two threads.

/// Fewer than these one thread has done before another has begun.
const WORTH_SHARING: usize = 64;

/// Has `work` done on all of a list: at once, or if it is long by this thread and one called `name`, for a half each.
/// What comes of it, in the order of the list.
///
/// # Panics
///
/// If `work` does.
///
/// ```
/// let all: Vec<u64> = (0..1000).collect();
/// let sums = gelid_image::shared_out("sums", &all, |part| part.iter().sum::<u64>());
/// assert_eq!(sums.iter().sum::<u64>(), 499_500);
/// ```
pub fn shared_out<T: Sync, R: Send>(
    name: &str,
    all: &[T],
    work: impl Fn(&[T]) -> R + Sync,
) -> Vec<R> {
    if all.len() < WORTH_SHARING {
        return vec![work(all)];
    }
    let (one, other) = all.split_at(all.len() / 2);
    std::thread::scope(|scope| {
        let beside = std::thread::Builder::new().name(name.into());
        let beside = beside.spawn_scoped(scope, || work(other));
        let first = work(one);
        let second = match beside {
            Ok(beside) => beside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // If there can be no other thread, this one does it all.
            Err(_) => work(other),
        };
        vec![first, second]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_in_the_order_of_the_list() {
        for (len, parts) in [(0, 1), (1, 1), (63, 1), (64, 2), (1001, 2)] {
            let all: Vec<usize> = (0..len).collect();
            let done = shared_out("test", &all, <[usize]>::to_vec);
            assert_eq!(done.len(), parts, "{len}");
            assert_eq!(done.concat(), all);
        }
    }
}
