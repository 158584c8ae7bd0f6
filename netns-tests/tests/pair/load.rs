//! A pair under load: more datagrams than it can forward for a minute, and thousands of new connections
//! a second when the active router dies.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use netns_tests::harness::{say, trial};
use netns_tests::pair::{NIC, Pair, Terms, all_work};
use netns_tests::wire::Wire;
use netns_tests::{CLIENT, Failure, Outcome, VIP, ensure};

use crate::takeover::{CONNECTIONS, on_pair};
use crate::wire::is_advert;

const OVERLOAD: Duration = Duration::from_secs(60);
/// From one advert of the active router to the next.
const INTERVAL: Duration = Duration::from_millis(100);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("overload_is_no_death", overloaded),
        trial("connections_live_on_while_thousands_are_opened", crate::crowd::lives_on),
    ]
}

/// More than the router can do, for so long: adverts leave all the same.
fn overloaded() -> Outcome {
    on_pair(Terms::USUAL, |pair| {
        let mut connections = pair.connections(CONNECTIONS)?;
        let before = pair.router(1)?.log().len();
        let wire = Wire::open(&pair.observer, NIC)?;
        let ending = AtomicBool::new(false);
        let sent = AtomicU64::new(0);
        let stamps = thread::scope(|scope| -> Outcome<_> {
            for _ in 0..2 {
                scope.spawn(|| flood(pair, &ending, &sent));
            }
            let (begun, mut stamps) = (Instant::now(), Vec::new());
            while begun.elapsed() < OVERLOAD {
                let advert = wire.receive_stamped(Duration::from_secs(1), is_advert);
                stamps.extend(advert?.map(|(_, stamp)| stamp));
            }
            ending.store(true, Ordering::Relaxed);
            Ok(stamps)
        })?;
        let mut gaps: Vec<_> = stamps.windows(2).map(|pair| pair[1] - pair[0]).collect();
        gaps.sort();
        let longest = gaps.last().copied().ok_or_else(|| Failure::new("no adverts"))?;
        let typical = gaps[gaps.len() * 99 / 100];
        let datagrams = sent.load(Ordering::Relaxed) / OVERLOAD.as_secs();
        say(format_args!(
            "{datagrams} datagrams a second for {} s: {} adverts, 99 of 100 within {typical:?}, all within {longest:?}",
            OVERLOAD.as_secs(),
            stamps.len()
        ));
        ensure!(datagrams > 20_000, "only {datagrams} datagrams a second: that is no overload");
        // As the observer's kernel stamps them: what the machine takes to let the router run is in it.
        ensure!(typical < INTERVAL * 3 / 2, "one in a hundred comes after {typical:?}");
        ensure!(longest < INTERVAL * 2, "one was late by more than an interval: {longest:?}");
        let news = pair.router(1)?.log().split_off(before);
        let changed = news.iter().any(|line| line.contains("role="));
        ensure!(!changed, "the backup took over: {news:?}");
        all_work(&mut connections)
    })
}

/// Sends as fast as it can to a port that nobody serves.
fn flood(pair: &Pair, ending: &AtomicBool, sent: &AtomicU64) {
    let socket = pair.client.run(|| UdpSocket::bind((CLIENT, 0)));
    let Ok(socket) = socket else { return };
    let mut count = 0;
    while !ending.load(Ordering::Relaxed) {
        // Refusals come back as errors, and full queues too.
        count += u64::from(socket.send_to(b"of no use to anybody", (VIP, 9)).is_ok());
    }
    sent.fetch_add(count, Ordering::Relaxed);
}
