//! Samples → OTLP profiles: opentelemetry/proto/profiles/v1development, which may still change.

use std::{collections::HashMap, hash::Hash};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, any_value},
    profiles::v1development::{
        Function, KeyValueAndUnit, Line, Link, Location, Mapping, Profile, ProfilesDictionary, Sample as OtlpSample,
        Stack, ValueType,
    },
};

use super::{
    pprof::Head,
    samples::{Frames, Sample},
};
use crate::telemetry::go::{GOROUTINE_STATE, GOROUTINE_WAIT_REASON};

/// What code a frame is of (OTel semantic conventions, profile.frame.type).
const FRAME_TYPE: &str = "profile.frame.type";

/// One profile for each value, and the tables that they point into.
pub(super) fn encode(samples: &[Sample], head: &Head) -> (Vec<Profile>, ProfilesDictionary) {
    let mut builder = Builder::new(head);
    // Type, value, and the time that a sample stands for, where it is the same for all.
    type Kind = (&'static str, fn(&Sample) -> f64, Option<i64>);
    let wall: Kind = ("wall", |sample| sample.wall, None);
    let cpu = head
        .cpu_period
        .map(|period| -> Kind { ("cpu", |sample| sample.cpu, Some(period)) });
    let profiles = std::iter::once(wall).chain(cpu).map(|(kind, value, period)| {
        let (kind, unit) = (builder.text(kind), builder.text("nanoseconds"));
        let value_type = ValueType {
            type_strindex: kind,
            unit_strindex: unit,
        };
        let with_value = samples.iter().filter(|sample| value(sample) > 0.0);
        let samples = with_value.map(|sample| builder.sample(sample, value(sample))).collect();
        Profile {
            sample_type: Some(value_type),
            samples,
            time_unix_nano: head.started as u64,
            duration_nano: head.duration as u64,
            period_type: period.map(|_| value_type),
            period: period.unwrap_or(0),
            profile_id: std::iter::repeat_with(|| fastrand::u8(..)).take(16).collect(),
            ..Profile::default()
        }
    });
    let profiles = profiles.collect();
    (profiles, builder.dictionary)
}

/// Entries of a table by what they are of. The first of each table stands for none.
struct Builder {
    dictionary: ProfilesDictionary,
    bias: u64,
    strings: HashMap<String, i32>,
    functions: HashMap<(i32, i32), i32>,
    locations: HashMap<u64, i32>,
    attributes: HashMap<(i32, String), i32>,
    stacks: HashMap<Vec<i32>, i32>,
}

impl Builder {
    fn new(head: &Head) -> Self {
        let dictionary = ProfilesDictionary {
            mapping_table: vec![Mapping::default()],
            location_table: vec![Location::default()],
            function_table: vec![Function::default()],
            link_table: vec![Link::default()],
            string_table: vec![String::new()],
            attribute_table: vec![KeyValueAndUnit::default()],
            stack_table: vec![Stack::default()],
        };
        let mut builder = Self {
            dictionary,
            bias: head.bias,
            strings: HashMap::from([(String::new(), 0)]),
            functions: HashMap::new(),
            locations: HashMap::new(),
            attributes: HashMap::new(),
            stacks: HashMap::new(),
        };
        let filename_strindex = builder.text(&head.exe);
        builder.dictionary.mapping_table.push(Mapping {
            filename_strindex,
            ..Mapping::default()
        });
        builder
    }

    fn text(&mut self, text: &str) -> i32 {
        let table = &mut self.dictionary.string_table;
        entry(&mut self.strings, text.to_owned(), table, || text.to_owned())
    }

    fn attribute(&mut self, key: &str, value: &str) -> i32 {
        let key = self.text(key);
        let table = &mut self.dictionary.attribute_table;
        entry(&mut self.attributes, (key, value.to_owned()), table, || {
            KeyValueAndUnit {
                key_strindex: key,
                value: Some(AnyValue {
                    value: Some(any_value::Value::StringValue(value.to_owned())),
                }),
                unit_strindex: 0,
            }
        })
    }

    fn function(&mut self, name: &str, file: &str) -> i32 {
        let (name_strindex, filename_strindex) = (self.text(name), self.text(file));
        let table = &mut self.dictionary.function_table;
        let key = (name_strindex, filename_strindex);
        entry(&mut self.functions, key, table, || Function {
            name_strindex,
            system_name_strindex: name_strindex,
            filename_strindex,
            start_line: 0,
        })
    }

    fn location(&mut self, at: &Frames) -> i32 {
        if let Some(known) = self.locations.get(&at.vaddr) {
            return *known;
        }
        let lines = at.functions.iter().map(|frame| Line {
            function_index: self.function(&frame.function, &frame.file),
            line: frame.line.into(),
            column: 0,
        });
        let lines = lines.collect();
        let is_kernel = || at.functions.iter().any(|frame| frame.function.starts_with("[kernel]"));
        let kind = match at.is_go {
            true => "go",
            false if is_kernel() => "kernel",
            false => "native",
        };
        let attribute_indices = vec![self.attribute(FRAME_TYPE, kind)];
        let address = at.vaddr.wrapping_add(self.bias);
        let table = &mut self.dictionary.location_table;
        entry(&mut self.locations, at.vaddr, table, || Location {
            mapping_index: i32::from(at.is_go),
            address,
            lines,
            attribute_indices,
        })
    }

    fn sample(&mut self, sample: &Sample, value: f64) -> OtlpSample {
        let location_indices: Vec<i32> = sample.stack.iter().map(|at| self.location(at)).collect();
        let table = &mut self.dictionary.stack_table;
        let stack_index = entry(&mut self.stacks, location_indices.clone(), table, || Stack {
            location_indices,
        });
        let mut attribute_indices = vec![self.attribute(GOROUTINE_STATE, sample.state)];
        attribute_indices.extend(
            sample
                .reason
                .as_deref()
                .map(|reason| self.attribute(GOROUTINE_WAIT_REASON, reason)),
        );
        OtlpSample {
            stack_index,
            attribute_indices,
            values: vec![value.round() as i64],
            ..OtlpSample::default()
        }
    }
}

/// The number of an entry, which is made where there is none.
fn entry<K: Eq + Hash, V>(known: &mut HashMap<K, i32>, key: K, table: &mut Vec<V>, make: impl FnOnce() -> V) -> i32 {
    *known.entry(key).or_insert_with(|| {
        table.push(make());
        table.len() as i32 - 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::Frame;

    #[test]
    fn a_profile_for_each_value_and_tables_without_doubles() {
        let at = |vaddr: u64, name: &str| Frames {
            vaddr,
            is_go: !name.starts_with('['),
            functions: vec![Frame {
                function: name.to_owned(),
                file: String::new(),
                line: 7,
            }],
        };
        let sample = |top: &str, state: &'static str, reason: Option<&str>, cpu: f64| Sample {
            stack: vec![at(0x10 + top.len() as u64, top), at(0x20, "main.main")],
            state,
            reason: reason.map(str::to_owned),
            cpu,
            goroutines: 1.0,
            wall: 5e9,
        };
        let samples = [
            sample("main.wait", "waiting", Some("chan receive"), 0.0),
            sample("[kernel] read", "on CPU", None, 5e9),
        ];
        let head = Head {
            exe: "/srv/shop".to_owned(),
            started: 1,
            duration: 2,
            bias: 0x1000,
            cpu_period: Some(10_000_000),
        };
        let (profiles, dictionary) = encode(&samples, &head);
        let text = |index: i32| dictionary.string_table[index as usize].as_str();
        let kinds = profiles.iter().map(|profile| {
            let kind = profile.sample_type.unwrap();
            (text(kind.type_strindex), profile.samples.len(), profile.period)
        });
        assert_eq!(kinds.collect::<Vec<_>>(), [("wall", 2, 0), ("cpu", 1, 10_000_000)]);
        // None, and three places; None, and two stacks.
        assert_eq!((dictionary.location_table.len(), dictionary.stack_table.len()), (4, 3));
        let of_cpu = &profiles[1].samples[0];
        assert_eq!(of_cpu.values, [5_000_000_000]);
        let stack = &dictionary.stack_table[of_cpu.stack_index as usize];
        let names = stack.location_indices.iter().map(|index| {
            let location = &dictionary.location_table[*index as usize];
            let function = &dictionary.function_table[location.lines[0].function_index as usize];
            let kind = &dictionary.attribute_table[location.attribute_indices[0] as usize];
            let Some(any_value::Value::StringValue(kind)) = &kind.value.as_ref().unwrap().value else {
                panic!("{kind:?}");
            };
            (text(function.name_strindex), kind.as_str(), location.mapping_index)
        });
        assert_eq!(
            names.collect::<Vec<_>>(),
            [("[kernel] read", "kernel", 0), ("main.main", "go", 1)]
        );
        assert!(profiles.iter().all(|profile| profile.profile_id.len() == 16));
    }
}
