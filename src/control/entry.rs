//! A line of the log that is put together in one place and written in another.

use log::{Level, Record};

/// What happened, in a few words, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// A short phrase for people; names and numbers are fields.
    pub text: &'static str,
    /// Key and value; docs/operations.md lists the keys.
    pub fields: Vec<(&'static str, String)>,
}

impl Entry {
    /// Logs it.
    pub fn write(&self, level: Level) {
        let fields: Vec<_> =
            self.fields.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let fields = &fields[..];
        let mut record = Record::builder();
        record.level(level).target(module_path!()).key_values(&fields);
        log::logger().log(&record.args(format_args!("{}", self.text)).build());
    }
}
