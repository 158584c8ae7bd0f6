//! The time words. One type everywhere: smoltcp's, which can be made without reading a clock.

pub use smoltcp::time::{Duration, Instant};

/// `1 d 2 h`, `3 m 4 s`, `5.6 s`, `7.8 ms`, `9 µs`.
pub fn in_words(duration: Duration) -> String {
    let micros = duration.total_micros();
    let seconds = micros / 1_000_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        86_400.. => format!("{days} d {} h", hours % 24),
        3_600.. => format!("{hours} h {} m", minutes % 60),
        60.. => format!("{minutes} m {} s", seconds % 60),
        1.. => format!("{seconds}.{} s", micros / 100_000 % 10),
        0 if micros >= 1_000 => format!("{}.{} ms", micros / 1_000, micros / 100 % 10),
        0 => format!("{micros} µs"),
    }
}
