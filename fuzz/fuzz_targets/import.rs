//! Any text as the configuration of another load balancer: it is read in bounded time, and what comes out
//! is a file that tapvs accepts.
#![no_main]

use std::io;
use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use tapvs::config;
use tapvs::import::{Kind, Options, Surroundings, import};

/// Includes the text itself, and knows every name.
struct Around<'t>(&'t str);

impl Surroundings for Around<'_> {
    fn include(&mut self, pattern: &str, _: &str) -> io::Result<Vec<(String, String)>> {
        Ok(vec![(pattern.to_owned(), self.0.to_owned())])
    }

    fn host(&mut self, name: &str) -> Option<Ipv4Addr> {
        let last = u8::try_from(name.len()).ok()?;
        Some(Ipv4Addr::new(10, 0, 0, last))
    }

    fn port(&mut self, name: &str) -> Option<u16> {
        u16::try_from(name.len()).ok()
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    let _ = Kind::detect(&text);
    let (_, kind) = Kind::WORDS[usize::from(first % 3)];
    let options = Options {
        file: "fuzz".to_owned(),
        kind,
        config_id: (first & 0x80 != 0).then(|| "a".to_owned()),
        kernel_order: first & 0x40 != 0,
    };
    let Ok(imported) = import(&text, &options, &mut Around(&text)) else { return };
    if let Err(wrong) = config::parse(&imported.toml) {
        panic!("{wrong}\n{}", imported.toml);
    }
});
