//! Pictures from fixed moments, as text.

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::asker::{Heard, Moment};
use super::draw::draw;
use super::keys::Wish;
use super::picture::Picture;
use super::sort::Column;
use crate::cli::show::services::Sample;
use crate::control::protocol::{
    Drop, Drops, Figures, Frames, Health, Link, Now, Server, Service, Status, Turns,
};

/// Seconds since the router's start, and what has happened until then.
fn moment(second: u64) -> Moment {
    let figures = |share: u64| Figures {
        active: 2 * u32::try_from(share).unwrap(),
        inactive: 7,
        connections: share * second,
        bytes_in: share * 1_000 * second,
        bytes_out: share * 250_000 * second,
        ..Figures::default()
    };
    let server = |number: u64, weight, drained| Server {
        name: format!("web{number}"),
        address: format!("10.0.0.1{number}:8080"),
        weight,
        configured_weight: 2,
        drained,
        max_flows: 0,
        min_flows: 0,
        overloaded: false,
        fallback: false,
        health: None,
        figures: figures(number),
    };
    let service = |name: &str, address: &str, servers: Vec<Server>| Service {
        name: name.to_owned(),
        protocol: "tcp".to_owned(),
        address: address.to_owned(),
        method: "nat".to_owned(),
        scheduler: "wlc".to_owned(),
        scheduler_flags: Vec::new(),
        persistence: None,
        one_packet: false,
        group: None,
        figures: figures(10),
        servers,
    };
    let web = vec![server(1, 2, false), server(2, 0, true), server(3, 5, false)];
    let services = vec![
        service("web", "203.0.113.10:80", web),
        service("a service with a long name and one", "203.0.113.10:81", vec![server(4, 2, false)]),
    ];
    let link = |tap: &str, refused| Link {
        tap: tap.to_owned(),
        frames_in: 1_000 * second,
        bytes_in: 100_000 * second,
        frames_out: 2_000 * second,
        bytes_out: 3_000_000 * second,
        read_errors: 0,
        refused,
        lost: 0,
        offload: "off".into(),
        cut: 0,
    };
    let drop = |reason: &'static str, count, meaning: &'static str| Drop {
        reason: reason.into(),
        count,
        meaning: meaning.into(),
    };
    let uptime_us = second * 1_000_000;
    let frames = Frames {
        received: 2_000 * second,
        sent: 4_000 * second,
        dropped: 3 * second,
        ..Frames::default()
    };
    let reasons = vec![
        drop("runt", 0, "Shorter than an Ethernet header."),
        drop("other_destination_mac", 900, "Sent to another station's MAC."),
        drop(
            "no_flow",
            3 * second,
            "A packet that belongs to no flow and opens none: late, or out of the blue.",
        ),
    ];
    Moment {
        status: Status {
            name: "lvs1".to_owned(),
            version: "9.9.9".to_owned(),
            file: "nat.toml".to_owned(),
            virtual_ips: 2,
            services: 2,
            servers: 4,
            overridden: 2,
            down: 0,
            now: Now {
                uptime_us,
                generation: 4,
                flows: 12,
                max_flows: 1_000_000,
                turns: Turns { count: 5, longest_us: 312, above_1ms: 0 },
                frames,
                links: vec![link("tapvs0", 0), link("tapvs1", 17)],
                ..Now::default()
            },
        },
        services: Sample(services.into_iter().map(|service| (uptime_us, service)).collect()),
        drops: Drops { reasons, answers_not_made: 0, uptime_us },
    }
}

fn picture(seconds: &[u64]) -> Picture {
    let mut picture = Picture::default();
    seconds.iter().for_each(|second| picture.hear(Heard::Moment(Box::new(moment(*second)))));
    picture
}

fn screen(picture: &mut Picture, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(picture, frame)).unwrap();
    let cells = terminal.backend().buffer().content().chunks(usize::from(width));
    let line = |cells: &[ratatui::buffer::Cell]| cells.iter().map(|cell| cell.symbol()).collect();
    cells
        .map(|cells| {
            let line: String = line(cells);
            line.trim_end().to_owned()
        })
        .collect()
}

#[test]
fn all_of_it_fits_80_by_24() {
    let expected = "\
lvs1  up 1 m 5 s, generation 4, 12 of 1.00 M flows, 2 overridden
frames/s 2,000 in, 4,000 out, 3 dropped; longest turn 312 µs
SERVICE                  HEALTH   WEIGHT  ACTIVE INACTIVE  NEW/S  IN b/s OUT b/s
web nat wlc                                   20        7     10  80.0 k  20.0 M
  web1                   -             2       2        7      1   8,000  2.00 M
  web2                   drained       0       4        7      2  16.0 k  4.00 M
  web3                   changed       5       6        7      3  24.0 k  6.00 M
a service with a long n…                      20        7     10  80.0 k  20.0 M
  web4                   -             2       8        7      4  32.0 k  8.00 M








LINK               IN frames/s       b/s OUT frames/s       b/s
tapvs0                   1,000     800 k        2,000    24.0 M
tapvs1                   1,000     800 k        2,000    24.0 M  refused 17
DROPPED               FRAMES/S    IN ALL  MEANING
no_flow                      3       195  A packet that belongs to no flow and …
other_destination_mac        0       900  Sent to another station's MAC.
q quit  sort by n w a i c b o, f file order  r reverse  ↑↓ scroll";
    let lines = screen(&mut picture(&[63, 65]), 80, 24);
    assert_eq!(lines.join("\n"), expected);
}

#[test]
fn a_larger_terminal_shows_more() {
    let lines = screen(&mut picture(&[63, 65]), 120, 40);
    assert_eq!(lines.len(), 40);
    assert_eq!(
        lines[2],
        "SERVICE                                          HEALTH   WEIGHT  ACTIVE INACTIVE  NEW/S  IN b/s OUT b/s"
    );
    assert_eq!(
        lines[7],
        "a service with a long name and one nat wlc                            20        7     10  80.0 k  20.0 M"
    );
    assert_eq!(
        lines[37],
        "no_flow                      3       195  A packet that belongs to no flow and opens none: late, or out of the blue."
    );
    assert!(lines[39].starts_with("q quit  sort: n name w weight"), "{}", lines[39]);
}

#[test]
fn a_server_that_is_down_is_down_whatever_else_it_is() {
    let mut picture = picture(&[63]);
    let mut sick = moment(65);
    let health =
        |up, checking| Some(Health { up, checking, since_ms: 5, reason: None, last: None });
    let servers = &mut sick.services.0[0].1.servers;
    servers[0].health = health(true, false);
    servers[1].health = health(false, false);
    servers[2].health = health(true, true);
    sick.status.down = 1;
    picture.hear(Heard::Moment(Box::new(sick)));
    let lines = screen(&mut picture, 80, 24);
    let healths = lines[4..7].iter().map(|line| line.split_whitespace().nth(1).unwrap());
    assert_eq!(healths.collect::<Vec<_>>(), ["up", "down", "checking"]);
    assert!(lines[0].ends_with(", 1 down"), "{}", lines[0]);
}

#[test]
fn it_is_sorted_by_every_column_and_back() {
    let order = |picture: &mut Picture| -> Vec<String> {
        let lines = screen(picture, 80, 24);
        let names = lines[3..9].iter().map(|line| line.split_whitespace().next().unwrap());
        names.map(str::to_owned).collect()
    };
    let mut picture = picture(&[63, 65]);
    let file = ["web", "web1", "web2", "web3", "a", "web4"];
    assert_eq!(order(&mut picture), file);
    for (by, expected) in [
        (Column::Name, ["a", "web4", "web", "web1", "web2", "web3"]),
        (Column::Weight, ["web", "web3", "web1", "web2", "a", "web4"]),
        (Column::Active, ["web", "web3", "web2", "web1", "a", "web4"]),
        (Column::Inactive, file),
        (Column::New, ["web", "web3", "web2", "web1", "a", "web4"]),
        (Column::In, ["web", "web3", "web2", "web1", "a", "web4"]),
        (Column::Out, ["web", "web3", "web2", "web1", "a", "web4"]),
        (Column::File, file),
    ] {
        picture.follow(Wish::Sort(by));
        assert_eq!(order(&mut picture), expected, "{by:?}");
    }
    picture.follow(Wish::Sort(Column::Active));
    assert!(screen(&mut picture, 80, 24)[2].contains(" ↓ACTIVE "));
    picture.follow(Wish::Reverse);
    assert_eq!(order(&mut picture), ["web", "web1", "web2", "web3", "a", "web4"]);
    assert!(screen(&mut picture, 80, 24)[2].contains(" ↑ACTIVE "));
}

#[test]
fn what_does_not_fit_is_scrolled_to_and_no_further() {
    let mut picture = picture(&[63, 65]);
    let first = |picture: &mut Picture| screen(picture, 80, 14)[3].clone();
    assert!(first(&mut picture).starts_with("web nat wlc"));
    picture.follow(Wish::Scroll(1));
    assert!(first(&mut picture).starts_with("  web1"));
    picture.follow(Wish::Scroll(1_000));
    assert!(first(&mut picture).starts_with("  web2"), "four lines of six");
    picture.follow(Wish::Scroll(-1));
    assert!(first(&mut picture).starts_with("  web1"), "nothing to be undone of the rest");
    picture.follow(Wish::Top);
    assert!(first(&mut picture).starts_with("web nat wlc"));
}

#[test]
fn rates_are_of_two_looks_and_begin_anew_with_the_router() {
    let rate = |picture: &mut Picture| {
        screen(picture, 80, 24)[4].split_whitespace().nth(5).unwrap().to_owned()
    };
    let mut picture = picture(&[63]);
    assert_eq!(rate(&mut picture), "-", "one look is none");
    assert!(screen(&mut picture, 80, 24)[1].contains("from the second look on"));
    picture.hear(Heard::Moment(Box::new(moment(73))));
    assert_eq!(rate(&mut picture), "1", "over ten seconds");
    // Started again: everything counts from 0, and nothing is negative.
    picture.hear(Heard::Moment(Box::new(moment(2))));
    assert_eq!(rate(&mut picture), "-");
    picture.hear(Heard::Moment(Box::new(moment(4))));
    assert_eq!(rate(&mut picture), "1");
    // A reload that took a server away and brought it back: its counters are 0 again.
    let mut reloaded = moment(6);
    reloaded.services.0[0].1.servers[0].figures = Figures::default();
    picture.hear(Heard::Moment(Box::new(reloaded)));
    assert_eq!(rate(&mut picture), "0");
    // And one that took it away leaves the others.
    let mut reloaded = moment(8);
    reloaded.services.0[0].1.servers.remove(0);
    picture.hear(Heard::Moment(Box::new(reloaded)));
    let lines = screen(&mut picture, 80, 24);
    assert!(lines[4].starts_with("  web2") && lines[4].contains(" 2  16.0 k"), "{}", lines[4]);
}

#[test]
fn a_lost_router_leaves_what_was_known_and_says_so() {
    let mut picture = Picture::default();
    assert!(screen(&mut picture, 80, 24)[0].starts_with("waiting for"));
    picture.hear(Heard::Lost("no router to ask".to_owned()));
    assert_eq!(screen(&mut picture, 80, 24)[0], "no router to ask");
    let mut picture = self::picture(&[63, 65]);
    picture.hear(Heard::Lost("/run/tapvs/lvs1.sock: it hung up".to_owned()));
    let lines = screen(&mut picture, 80, 24);
    assert_eq!(lines[1], "connection lost, retrying: /run/tapvs/lvs1.sock: it hung up");
    assert!(lines[3].starts_with("web nat wlc"));
    picture.hear(Heard::Moment(Box::new(moment(67))));
    assert!(screen(&mut picture, 80, 24)[1].starts_with("frames/s 2,000 in"));
}

#[test]
fn no_terminal_is_too_small_or_too_large() {
    let mut picture = picture(&[63, 65]);
    for (width, height) in [(1, 1), (10, 3), (20, 5), (79, 7), (500, 200)] {
        let lines = screen(&mut picture, width, height);
        assert!(lines.last().unwrap().starts_with('q'), "{width}×{height}: the keys are shown");
    }
    let mut many = moment(67);
    many.status.now.links = vec![many.status.now.links[0].clone(); 40];
    many.services.0 = vec![many.services.0[0].clone(); 500];
    picture.hear(Heard::Moment(Box::new(many)));
    let lines = screen(&mut picture, 80, 24);
    assert!(lines.iter().any(|line| line.ends_with("  36 more")), "{lines:#?}");
}
