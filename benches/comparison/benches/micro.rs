//! What single steps of the dataplane cost: `cargo bench -p tapvs-bench`.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use tapvs_bench::micro::Step;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut group = criterion.benchmark_group("dataplane");
    group.throughput(Throughput::Elements(1));
    // A million: more than any cache holds.
    for step in Step::all().into_iter().chain([Step::Hit(1_000_000)]) {
        // Flows are found again in every sample.
        let mut known = None;
        group.bench_function(step.name(), |bencher| {
            bencher.iter_custom(|steps| {
                let mut took = Duration::ZERO;
                let mut left = steps;
                while left > 0 {
                    let now = u32::try_from(left).unwrap_or(u32::MAX).min(step.limit());
                    // What is good for any number of steps is prepared once.
                    let mut prepared = match known.take() {
                        Some(prepared) => prepared,
                        None => step.prepare(now),
                    };
                    let begin = Instant::now();
                    prepared.run(now);
                    took += begin.elapsed();
                    if step.limit() == u32::MAX {
                        known = Some(prepared);
                    }
                    left -= u64::from(now);
                }
                took
            });
        });
    }
    group.finish();
    criterion.final_summary();
}
