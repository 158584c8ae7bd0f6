//! The arrows between the rooms of `src/`: who may use whom, and what a room must never touch.
//!
//! This table is the house plan. A change of plan is a change here, in the same commit as the code.

mod source;

use std::path::Path;

use source::{Found, Source};

/// One room: its files, the rooms it may use, and the words that do not belong in it.
struct Room {
    name: &'static str,
    uses: &'static [&'static str],
    never: &'static [Never],
}

/// A path or keyword that is banned, and why.
#[derive(Clone, Copy)]
struct Never {
    path: &'static str,
    reason: &'static str,
}

const fn never(path: &'static str, reason: &'static str) -> Never {
    Never { path, reason }
}

const NO_UNSAFE: Never = never("unsafe", "`unsafe` lives in links alone");
const NO_ETHERPARSE: Never = never("etherparse", "frame alone parses");
const NO_ARC_SWAP: Never = never("arc_swap", "a room is given &Table and never sees ArcSwap");
const NO_STD_TIME: Never = never("std::time", "time is an argument, of crate::time's types");
const NO_SYSTEM_TIME: Never = never("SystemTime", "time is an argument");
const NO_CLOCK: Never = never("Instant::now", "time is an argument");
const NO_FILES: Never = never("std::fs", "it reads and writes no files");
const NO_DESCRIPTORS: Never = never("std::os::fd", "it holds no descriptors");

/// What no room but one may touch.
const ORDINARY: &[Never] = &[NO_UNSAFE, NO_ETHERPARSE];
/// What a room without I/O may not touch either.
const PURE: &[Never] = &[
    NO_UNSAFE,
    NO_ETHERPARSE,
    NO_ARC_SWAP,
    NO_STD_TIME,
    NO_SYSTEM_TIME,
    NO_CLOCK,
    NO_FILES,
    NO_DESCRIPTORS,
];

/// From the ground up: a room may only name rooms that stand before it.
const ROOMS: &[Room] = &[
    Room { name: "addr", uses: &[], never: PURE },
    Room { name: "time", uses: &[], never: PURE },
    Room {
        name: "frame",
        uses: &["addr", "time"],
        never: &[NO_UNSAFE, NO_STD_TIME, NO_CLOCK, NO_FILES],
    },
    Room { name: "http", uses: &[], never: PURE },
    Room { name: "config", uses: &["addr", "time"], never: PURE },
    // Words again: what the table compiles, the host carries out and control judges.
    Room { name: "health", uses: &["addr", "time", "config"], never: PURE },
    Room { name: "table", uses: &["addr", "time", "config", "health"], never: PURE },
    Room { name: "dataplane", uses: &["addr", "time", "frame", "table"], never: PURE },
    Room { name: "host", uses: &["addr", "time", "http", "config", "health"], never: PURE },
    Room { name: "ha", uses: &["addr", "time", "frame", "config"], never: PURE },
    Room {
        name: "links",
        uses: &["addr", "time", "frame", "config"],
        never: &[NO_ETHERPARSE, NO_ARC_SWAP],
    },
    // Decides nothing: it looks at what the dataplane did, and control tells the client of it.
    Room { name: "trace", uses: &["addr", "time", "frame", "table", "dataplane"], never: PURE },
    Room {
        name: "control",
        uses: &["addr", "time", "http", "config", "health", "table", "links", "trace"],
        never: ORDINARY,
    },
    Room {
        name: "run",
        uses: &[
            "addr",
            "time",
            "frame",
            "config",
            "health",
            "table",
            "dataplane",
            "host",
            "ha",
            "links",
            "control",
            "trace",
        ],
        never: ORDINARY,
    },
    Room { name: "lab", uses: &["addr", "time", "config", "links"], never: ORDINARY },
    Room { name: "realserver", uses: &["addr", "time", "config", "links"], never: ORDINARY },
    Room { name: "import", uses: &["addr", "time", "config", "links"], never: ORDINARY },
    Room { name: "cli", uses: EVERYTHING, never: ORDINARY },
    Room { name: "main", uses: &["cli"], never: ORDINARY },
];

/// What the command line may use.
const EVERYTHING: &[&str] = &[
    "addr",
    "time",
    "frame",
    "config",
    "health",
    "table",
    "dataplane",
    "host",
    "ha",
    "links",
    "trace",
    "control",
    "run",
    "lab",
    "realserver",
    "import",
];

#[test]
fn every_arrow_in_src_is_allowed() {
    let sources = source::read_tree(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    assert!(sources.len() > 5, "only {} files read: is this the source tree?", sources.len());
    let wrong: Vec<String> = sources.iter().flat_map(check).collect();
    assert!(wrong.is_empty(), "{} wrong arrows:\n{}", wrong.len(), wrong.join("\n"));
}

/// The table itself: a room may only use what stands before it.
#[test]
fn the_plan_has_no_circle() {
    for (at, room) in ROOMS.iter().enumerate() {
        for used in room.uses {
            assert!(
                ROOMS[..at].iter().any(|below| below.name == *used),
                "`{}` is allowed to use `{used}`, which does not stand before it",
                room.name
            );
        }
    }
}

/// Everything wrong in one file, as `FILE:LINE: message`.
fn check(source: &Source) -> Vec<String> {
    let name = source.room();
    if name == "lib" {
        return Vec::new(); // declares the rooms, uses none
    }
    let Some(at) = ROOMS.iter().position(|room| room.name == name) else {
        return vec![format!("{}: `{name}` is no room of the plan in tests/rooms.rs", source.path)];
    };
    let room = &ROOMS[at];
    let mut wrong = Vec::new();
    for Found { line, room: used, in_test } in source.arrows() {
        // Tests may build their input with any room that stands before theirs.
        let allowed = used == name
            || room.uses.contains(&used.as_str())
            || in_test && ROOMS[..at].iter().any(|below| below.name == used);
        if !allowed {
            let may =
                if room.uses.is_empty() { "no other room".into() } else { room.uses.join(", ") };
            wrong.push(format!("{}:{line}: {name} -> {used}: {name} may use {may}", source.path));
        }
    }
    for never in room.never {
        for line in source.lines_with(never.path) {
            let path = never.path;
            wrong.push(format!("{}:{line}: `{path}` in {name}: {}", source.path, never.reason));
        }
    }
    wrong
}

fn check_text(path: &str, text: &str) -> Vec<String> {
    check(&Source::new(path, text))
}

#[test]
fn wrong_arrows_are_found_however_they_are_written() {
    let wrong = check_text(
        "src/dataplane/flow.rs",
        "use crate::frame::Frame;\n\
         use crate::links;\n\
         use crate::{addr::{MacAddr, LinkId}, host, table::Table,\n\
             control::{Control}};\n\
         fn f() { super::super::run::start(); }\n\
         mod inner { use super::super::super::ha::Role; use super::super::nat; use super::X; }\n\
         pub(crate) fn g() { let _ = crate :: config :: Config::default(); }\n",
    );
    let expected = [
        "src/dataplane/flow.rs:2: dataplane -> links: dataplane may use addr, time, frame, table",
        "src/dataplane/flow.rs:3: dataplane -> host: dataplane may use addr, time, frame, table",
        "src/dataplane/flow.rs:4: dataplane -> control: dataplane may use addr, time, frame, table",
        "src/dataplane/flow.rs:5: dataplane -> run: dataplane may use addr, time, frame, table",
        "src/dataplane/flow.rs:6: dataplane -> ha: dataplane may use addr, time, frame, table",
        "src/dataplane/flow.rs:7: dataplane -> config: dataplane may use addr, time, frame, table",
    ];
    assert_eq!(wrong, expected);
}

#[test]
fn text_comments_and_lifetimes_are_not_code() {
    let clean = check_text(
        "src/dataplane/mod.rs",
        "//! Never uses crate::links, unsafe or std::time::Instant.\n\
         /* crate::run /* nested crate::ha */ etherparse */\n\
         fn f<'a>(x: &'a str) -> char { let _ = \"crate::links \\\" unsafe\"; let _ = r#\"unsafe \" std::fs\"#; '\\'' }\n\
         /// [`crate::control`] is only mentioned.\n\
         fn g() -> char { '\"' }\n",
    );
    assert_eq!(clean, Vec::<String>::new());
    let after = check_text("src/dataplane/mod.rs", "fn f() -> char { '\"' }\nuse crate::links;\n");
    assert_eq!(after.len(), 1, "{after:?}");
}

#[test]
fn tests_may_use_the_rooms_before_theirs_but_no_later_one() {
    let text = "use crate::config::A;\n\
                #[cfg(test)]\nmod tests {\n    use crate::config::B;\n    use crate::run::C;\n}\n\
                use crate::config::D;\n";
    let lines = |wrong: Vec<String>| -> Vec<String> {
        wrong.iter().map(|w| w.split(':').nth(1).unwrap_or_default().to_string()).collect()
    };
    assert_eq!(lines(check_text("src/dataplane/mod.rs", text)), ["1", "5", "7"]);
    // A file of tests is test code from its first line.
    assert_eq!(lines(check_text("src/dataplane/tests.rs", text)), ["5"]);
    assert_eq!(lines(check_text("src/dataplane/tests/nat.rs", text)), ["5"]);
}

#[test]
fn banned_words_are_found() {
    let wrong = check_text(
        "src/ha/mod.rs",
        "use std::time::Instant;\nuse std::{fs, time::SystemTime};\nuse etherparse::Ethernet2Header;\n\
         fn f() { unsafe { g() } }\nuse arc_swap::ArcSwap;\n",
    );
    for line in [
        "ha/mod.rs:1: `std::time`",
        ":2: `std::fs`",
        ":2: `SystemTime`",
        ":3: `etherparse`",
        ":4: `unsafe`",
        ":5: `arc_swap`",
    ] {
        assert!(wrong.iter().any(|w| w.contains(line)), "{line} missing in {wrong:#?}");
    }
    assert_eq!(check_text("src/links/tap.rs", "fn f() { unsafe { g() } }"), Vec::<String>::new());
    assert_eq!(check_text("src/frame/mod.rs", "use etherparse::X;"), Vec::<String>::new());
    assert_eq!(check_text("src/cellar/mod.rs", "").len(), 1, "an unknown room is reported");
    let main = check_text("src/table/mod.rs", "fn f() { tapvs::run::g() }");
    assert_eq!(main.len(), 1, "the crate's own name is an arrow too: {main:?}");
}
