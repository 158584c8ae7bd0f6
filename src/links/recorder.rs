//! What a test of this crate makes the log say, on its own thread: lines with level and fields.

use std::cell::RefCell;
use std::sync::Once;

use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};

thread_local! {
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Does something and tells what it logged, from `Info` on: `LEVEL text key=value …`.
pub(crate) fn logged(act: impl FnOnce()) -> Vec<String> {
    static SET: Once = Once::new();
    SET.call_once(|| {
        log::set_logger(&Recorder).unwrap();
        log::set_max_level(LevelFilter::Info);
    });
    LINES.set(Some(Vec::new()));
    act();
    LINES.take().unwrap_or_default()
}

struct Recorder;

impl Log for Recorder {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        LINES.with_borrow_mut(|lines| {
            if let Some(lines) = lines {
                let mut line = Line(format!("{} {}", record.level(), record.args()));
                record.key_values().visit(&mut line).unwrap();
                lines.push(line.0);
            }
        });
    }

    fn flush(&self) {}
}

struct Line(String);

impl<'kvs> VisitSource<'kvs> for Line {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let value = value.to_string();
        let value = if value.contains(' ') { format!("{value:?}") } else { value };
        self.0 += &format!(" {key}={value}");
        Ok(())
    }
}
