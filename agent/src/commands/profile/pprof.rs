//! Samples → a profile as `go tool pprof` reads it: github.com/google/pprof, proto/profile.proto, gzip'd.

use std::{collections::HashMap, io::Write as _};

use flate2::{Compression, write::GzEncoder};
use prost::Message;

use super::samples::{Frames, Sample};

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Value>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    /// The first is empty.
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    /// ns after 1970.
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

/// Type and unit, by number of a string, as all text is.
#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

/// A Sample of the protocol.
#[derive(Clone, PartialEq, Message)]
struct Value {
    /// Innermost first.
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    text: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    /// pprof looks for none of these itself then.
    #[prost(bool, tag = "7")]
    has_functions: bool,
    #[prost(bool, tag = "8")]
    has_filenames: bool,
    #[prost(bool, tag = "9")]
    has_line_numbers: bool,
    #[prost(bool, tag = "10")]
    has_inline_frames: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    /// Inlined functions first.
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// What holds for the whole profile.
pub(super) struct Head {
    pub exe: String,
    /// ns after 1970.
    pub started: i64,
    /// ns.
    pub duration: i64,
    /// Run-time less link-time address.
    pub bias: u64,
    /// Time that a sample of code on CPU stands for, ns; None without such samples.
    pub cpu_period: Option<i64>,
}

#[derive(Default)]
struct Builder {
    profile: Profile,
    strings: HashMap<String, i64>,
    /// By name and file.
    functions: HashMap<(i64, i64), u64>,
    /// By link-time address.
    locations: HashMap<u64, u64>,
}

/// The bytes of the file.
pub(super) fn encode(samples: &[Sample], head: &Head) -> std::io::Result<Vec<u8>> {
    let profile = profile(samples, head).encode_to_vec();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&profile)?;
    gzip.finish()
}

fn profile(samples: &[Sample], head: &Head) -> Profile {
    let mut builder = Builder::default();
    builder.text("");
    let cpu = head.cpu_period.map(|_| ("cpu", "nanoseconds"));
    let kinds = [Some(("goroutines", "count")), cpu, Some(("wall", "nanoseconds"))];
    for (kind, unit) in kinds.into_iter().flatten() {
        let (kind, unit) = (builder.text(kind), builder.text(unit));
        builder.profile.sample_type.push(ValueType { kind, unit });
    }
    builder.profile.default_sample_type = builder.text("wall");
    builder.profile.time_nanos = head.started;
    builder.profile.duration_nanos = head.duration;
    let filename = builder.text(&head.exe);
    builder.profile.mapping.push(Mapping {
        id: 1,
        filename,
        has_functions: true,
        has_filenames: true,
        has_line_numbers: true,
        has_inline_frames: true,
    });
    for sample in samples {
        let location_id = sample.stack.iter().map(|at| builder.location(at, head.bias)).collect();
        let labels = [("state", Some(sample.state)), ("wait_reason", sample.reason.as_deref())];
        let labels = labels.into_iter().filter_map(|(key, text)| Some((key, text?)));
        let label = labels
            .map(|(key, text)| Label {
                key: builder.text(key),
                text: builder.text(text),
            })
            .collect();
        builder.profile.sample.push(Value {
            location_id,
            value: [
                Some(sample.goroutines),
                head.cpu_period.map(|_| sample.cpu),
                Some(sample.wall),
            ]
            .into_iter()
            .flatten()
            .map(|value| value.round() as i64)
            .collect(),
            label,
        });
    }
    builder.profile
}

impl Builder {
    fn text(&mut self, text: &str) -> i64 {
        if let Some(number) = self.strings.get(text) {
            return *number;
        }
        let number = self.profile.string_table.len() as i64;
        self.profile.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), number);
        number
    }

    fn location(&mut self, at: &Frames, bias: u64) -> u64 {
        if let Some(id) = self.locations.get(&at.vaddr) {
            return *id;
        }
        let line = at
            .functions
            .iter()
            .map(|frame| Line {
                function_id: self.function(&frame.function, &frame.file),
                line: frame.line.into(),
            })
            .collect();
        let id = self.profile.location.len() as u64 + 1;
        self.profile.location.push(Location {
            id,
            mapping_id: u64::from(at.is_go),
            address: at.vaddr.wrapping_add(bias),
            line,
        });
        self.locations.insert(at.vaddr, id);
        id
    }

    fn function(&mut self, name: &str, file: &str) -> u64 {
        let (name, filename) = (self.text(name), self.text(file));
        let next = self.profile.function.len() as u64 + 1;
        let id = *self.functions.entry((name, filename)).or_insert(next);
        if id == next {
            self.profile.function.push(Function {
                id,
                name,
                system_name: name,
                filename,
            });
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::Frame;

    #[test]
    fn what_is_the_same_is_written_once() {
        let frames = |vaddr: u64, names: &[&str]| Frames {
            vaddr,
            is_go: true,
            functions: names
                .iter()
                .map(|name| Frame {
                    function: (*name).to_owned(),
                    file: "main.go".to_owned(),
                    line: 7,
                })
                .collect(),
        };
        let sample = |state: &'static str, reason: Option<&str>, goroutines: f64| Sample {
            stack: vec![
                frames(0x10, &["main.inlined", "main.worker"]),
                frames(0x20, &["main.main"]),
            ],
            state,
            reason: reason.map(str::to_owned),
            cpu: 0.0,
            goroutines,
            wall: goroutines * 1e9,
        };
        let samples = [
            sample("waiting", Some("chan receive"), 59.6),
            sample("runnable", None, 0.2),
        ];
        let head = Head {
            exe: "/srv/shop".to_owned(),
            started: 1,
            duration: 2,
            bias: 0x1000,
            cpu_period: None,
        };
        let profile = profile(&samples, &head);
        let name = |number: i64| profile.string_table[number as usize].as_str();
        assert_eq!(profile.string_table[0], "");
        assert_eq!(name(profile.default_sample_type), "wall");
        let values: Vec<_> = profile.sample.iter().map(|sample| sample.value.clone()).collect();
        assert_eq!(values, [vec![60, 59_600_000_000], vec![0, 200_000_000]]);
        assert!(profile.sample.iter().all(|sample| sample.location_id == [1, 2]));
        assert_eq!(
            profile.location.iter().map(|at| at.address).collect::<Vec<_>>(),
            [0x1010, 0x1020]
        );
        let functions = profile.function.iter().map(|function| name(function.name));
        assert_eq!(
            functions.collect::<Vec<_>>(),
            ["main.inlined", "main.worker", "main.main"]
        );
        let labels = profile.sample.iter().flat_map(|sample| &sample.label);
        let labels: Vec<_> = labels.map(|label| (name(label.key), name(label.text))).collect();
        assert_eq!(
            labels,
            [
                ("state", "waiting"),
                ("wait_reason", "chan receive"),
                ("state", "runnable")
            ]
        );
    }
}
