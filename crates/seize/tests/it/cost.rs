//! What a freeze costs. Prints; asserts only that nothing grows out of all proportion.

use std::time::{Duration, Instant};

use crate::guest::Guest;

fn measure(name: &str, guest: &Guest, threads: usize) {
    let mut times: Vec<(Duration, Duration, Duration)> = (0..15)
        .map(|_| {
            let start = Instant::now();
            let tree = guest.freeze();
            let whole = start.elapsed();
            assert_eq!(tree.threads().count(), threads);
            let freezing = tree.stats().freezing;
            let start = Instant::now();
            tree.thaw().unwrap();
            (whole, freezing, start.elapsed())
        })
        .collect();
    times.sort();
    let (whole, freezing, thaw) = times[times.len() / 2];
    println!(
        "{name}: freeze {whole:?}, of which stopped {freezing:?}; thaw {thaw:?}; {:?} best",
        times[0]
    );
    assert!(
        whole < Duration::from_millis(100) * (threads as u32 / 10 + 1),
        "{name}: {whole:?}"
    );
}

#[test]
fn of_one_thread() {
    let guest = Guest::perl("print qq(ready\\n); sleep 1000;");
    measure("1 thread", &guest, 1);
}

#[test]
fn of_a_thousand_threads() {
    let guest = Guest::python(
        "import threading, time\nthreading.stack_size(65536)\n\
         for i in range(999): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n\
         print('ready')\ntime.sleep(1000)",
    );
    measure("1,000 threads", &guest, 1000);
}

#[test]
fn of_five_hundred_processes() {
    let guest = Guest::perl(
        "for (1..7) { for (1..70) { if (!fork) { sleep 1000 } } if (fork) { sleep 1000 } } \
         for (1..3) { fork or sleep 1000 } select undef, undef, undef, 0.3; print qq(ready\\n); sleep 1000;",
    );
    std::thread::sleep(Duration::from_millis(500));
    measure("501 processes", &guest, 501);
}
