//! Profiles in the format of pprof: `profile.proto` of github.com/google/pprof, compressed with gzip.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::io::{self, Write};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use stockade::Event;
use stockade::event::{Frame, Kind, ProfileMode};

/// The messages, with the numbers of their fields; those that we never fill in are left out.
mod proto {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Profile {
        #[prost(message, repeated, tag = "1")]
        pub(super) sample_type: Vec<ValueType>,
        #[prost(message, repeated, tag = "2")]
        pub(super) sample: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub(super) mapping: Vec<Mapping>,
        #[prost(message, repeated, tag = "4")]
        pub(super) location: Vec<Location>,
        #[prost(message, repeated, tag = "5")]
        pub(super) function: Vec<Function>,
        #[prost(string, repeated, tag = "6")]
        pub(super) string_table: Vec<String>,
        #[prost(int64, tag = "9")]
        pub(super) time_nanos: i64,
        #[prost(int64, tag = "10")]
        pub(super) duration_nanos: i64,
        #[prost(message, optional, tag = "11")]
        pub(super) period_type: Option<ValueType>,
        #[prost(int64, tag = "12")]
        pub(super) period: i64,
    }

    /// Both are places in the table of strings, as every text here.
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct ValueType {
        #[prost(int64, tag = "1")]
        pub(super) kind: i64,
        #[prost(int64, tag = "2")]
        pub(super) unit: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Sample {
        /// The innermost first.
        #[prost(uint64, repeated, tag = "1")]
        pub(super) location_id: Vec<u64>,
        #[prost(int64, repeated, tag = "2")]
        pub(super) value: Vec<i64>,
        #[prost(message, repeated, tag = "3")]
        pub(super) label: Vec<Label>,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct Label {
        #[prost(int64, tag = "1")]
        pub(super) key: i64,
        #[prost(int64, tag = "2")]
        pub(super) text: i64,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct Mapping {
        #[prost(uint64, tag = "1")]
        pub(super) id: u64,
        #[prost(uint64, tag = "2")]
        pub(super) memory_start: u64,
        #[prost(uint64, tag = "3")]
        pub(super) memory_limit: u64,
        #[prost(int64, tag = "5")]
        pub(super) filename: i64,
        #[prost(bool, tag = "7")]
        pub(super) has_functions: bool,
        #[prost(bool, tag = "8")]
        pub(super) has_filenames: bool,
        #[prost(bool, tag = "9")]
        pub(super) has_line_numbers: bool,
        #[prost(bool, tag = "10")]
        pub(super) has_inline_frames: bool,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Location {
        #[prost(uint64, tag = "1")]
        pub(super) id: u64,
        #[prost(uint64, tag = "2")]
        pub(super) mapping_id: u64,
        #[prost(uint64, tag = "3")]
        pub(super) address: u64,
        /// The innermost of the functions inlined there first, the one that they are inlined into last.
        #[prost(message, repeated, tag = "4")]
        pub(super) line: Vec<Line>,
    }

    #[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
    pub(super) struct Line {
        #[prost(uint64, tag = "1")]
        pub(super) function_id: u64,
        #[prost(int64, tag = "2")]
        pub(super) line: i64,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct Function {
        #[prost(uint64, tag = "1")]
        pub(super) id: u64,
        #[prost(int64, tag = "2")]
        pub(super) name: i64,
        #[prost(int64, tag = "3")]
        pub(super) system_name: i64,
        #[prost(int64, tag = "4")]
        pub(super) filename: i64,
    }
}

/// Numbers things from `first` on, each once.
#[derive(Debug)]
struct Numbers<K> {
    known: HashMap<K, u64>,
    first: u64,
}

impl<K: Hash + Eq> Numbers<K> {
    fn from(first: u64) -> Self {
        Numbers {
            known: HashMap::new(),
            first,
        }
    }

    /// Its number, and whether it is new.
    fn of<Q>(&mut self, key: &Q) -> (u64, bool)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(number) = self.known.get(key) {
            return (*number, false);
        }
        let number = self.first + self.known.len() as u64;
        self.known.insert(key.to_owned(), number);
        (number, true)
    }
}

/// A place in the code: mapping, address there, and the lines of the functions that meet there.
type Place = (u64, u64, Vec<proto::Line>);

/// Adds profiles up: one sample for each process name and stack.
#[derive(Debug)]
pub(super) struct Pprof {
    strings: Numbers<String>,
    functions: Numbers<(i64, i64)>,
    /// By their file's name, a place in the table of strings.
    mappings: Numbers<i64>,
    places: Numbers<Place>,
    profile: proto::Profile,
    /// How often and how long, by name of the process and stack, the innermost first.
    sums: BTreeMap<(i64, Vec<u64>), [u64; 2]>,
}

impl Pprof {
    pub(super) fn new() -> Self {
        let mut new = Pprof {
            strings: Numbers::from(0),
            // 0 stands for none.
            functions: Numbers::from(1),
            mappings: Numbers::from(1),
            places: Numbers::from(1),
            profile: proto::Profile::default(),
            sums: BTreeMap::new(),
        };
        // The format wants it at 0.
        new.string("");
        new
    }

    /// Adds a profile; other events add nothing.
    pub(super) fn add(&mut self, event: &Event) {
        let Kind::Profile(stacks) = &event.kind else {
            return;
        };
        let process = self.string(&event.process.comm);
        let mut places = Vec::new();
        if stacks.preempted {
            places.push(self.preempted());
        }
        self.locate(&stacks.kernel, &mut places);
        self.locate(&stacks.user, &mut places);
        let sum = self.sums.entry((process, places)).or_default();
        sum[0] += stacks.samples;
        sum[1] += stacks.time_ns;
    }

    /// How many stacks there are.
    pub(super) fn stacks(&self) -> usize {
        self.sums.len()
    }

    fn string(&mut self, text: &str) -> i64 {
        let (number, new) = self.strings.of(text);
        if new {
            self.profile.string_table.push(text.to_owned());
        }
        signed(number)
    }

    /// What a thread was at that could have run.
    fn preempted(&mut self) -> u64 {
        let line = self.line("[preempted]", "", 0);
        self.place((0, 0, vec![line]))
    }

    /// Frames as places: those that are inlined belong to the one behind them.
    fn locate(&mut self, frames: &[Frame], places: &mut Vec<u64>) {
        let mut lines = Vec::new();
        for frame in frames {
            if let Some(function) = &frame.function {
                let file = frame.file.as_deref().unwrap_or("");
                lines.push(self.line(function, file, frame.line.unwrap_or(0)));
            }
            if frame.inlined {
                continue;
            }
            let (mapping, address) = self.mapping(frame);
            let place = (mapping, address, std::mem::take(&mut lines));
            places.push(self.place(place));
        }
    }

    fn line(&mut self, function: &str, file: &str, line: u32) -> proto::Line {
        let (name, filename) = (self.string(function), self.string(file));
        let (id, new) = self.functions.of(&(name, filename));
        if new {
            self.profile.function.push(proto::Function {
                id,
                name,
                system_name: name,
                filename,
            });
        }
        proto::Line {
            function_id: id,
            line: line.into(),
        }
    }

    /// The file that a frame's code is from, and where in it: processes have the same file at different addresses.
    fn mapping(&mut self, frame: &Frame) -> (u64, u64) {
        let Some(module) = &frame.module else {
            return (0, frame.address);
        };
        let filename = self.string(module);
        let (id, new) = self.mappings.of(&filename);
        if new {
            self.profile.mapping.push(proto::Mapping {
                id,
                memory_limit: u64::MAX,
                filename,
                // All that is known is known already: nobody need look for the file.
                has_functions: true,
                has_filenames: true,
                has_line_numbers: true,
                has_inline_frames: true,
                ..proto::Mapping::default()
            });
        }
        let in_file = module.starts_with('/');
        let address = if in_file {
            frame.module_offset
        } else {
            frame.address
        };
        (id, address)
    }

    fn place(&mut self, place: Place) -> u64 {
        let (id, new) = self.places.of(&place);
        let (mapping_id, address, line) = place;
        if new {
            self.profile.location.push(proto::Location {
                id,
                mapping_id,
                address,
                line,
            });
        }
        id
    }

    /// Writes it all. `period` is the time between two samples, 0 where every wait was measured; it began so long after
    /// 1970.
    pub(super) fn write(
        mut self,
        mode: ProfileMode,
        period: Duration,
        began: Duration,
        took: Duration,
        out: impl Write,
    ) -> io::Result<()> {
        let (counted, timed) = match mode {
            ProfileMode::OffCpu => ("waits", "off_cpu"),
            _ => ("samples", "cpu"),
        };
        let mut value_type = |kind, unit| proto::ValueType {
            kind: self.string(kind),
            unit: self.string(unit),
        };
        let time = value_type(timed, "nanoseconds");
        let types = vec![value_type(counted, "count"), time];
        let key = self.string("process");
        let profile = &mut self.profile;
        profile.sample_type = types;
        profile.period_type = Some(time);
        profile.period = nanoseconds(period);
        profile.time_nanos = nanoseconds(began);
        profile.duration_nanos = nanoseconds(took);
        for ((process, places), [count, time_ns]) in self.sums {
            profile.sample.push(proto::Sample {
                location_id: places,
                value: vec![signed(count), signed(time_ns)],
                label: vec![proto::Label { key, text: process }],
            });
        }
        let mut packed = GzEncoder::new(out, Compression::default());
        packed.write_all(&profile.encode_to_vec())?;
        packed.finish()?.flush()
    }
}

/// The format's numbers are signed.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use stockade::event::{Profile as Stacks, sample};

    use super::*;

    /// What was written of the samples of one mode.
    fn written(mode: ProfileMode, period: Duration) -> proto::Profile {
        let mut pprof = Pprof::new();
        for event in sample::samples() {
            if matches!(&event.kind, Kind::Profile(Stacks { mode: m, .. }) if *m == mode) {
                // Twice the same is one sample of twice the weight.
                pprof.add(&event);
                pprof.add(&event);
            }
        }
        assert_eq!(pprof.stacks(), 1);
        let mut packed = Vec::new();
        pprof
            .write(
                mode,
                period,
                Duration::from_secs(1_772_355_600),
                Duration::from_secs(10),
                &mut packed,
            )
            .expect("memory takes everything");
        let mut bytes = Vec::new();
        GzDecoder::new(&packed[..])
            .read_to_end(&mut bytes)
            .expect("gzip");
        proto::Profile::decode(&bytes[..]).expect("a profile")
    }

    /// Its functions by place, the innermost first; those inlined there apart with a `<`.
    fn names(profile: &proto::Profile, places: &[u64]) -> Vec<String> {
        let text = |at: i64| profile.string_table[usize::try_from(at).unwrap()].clone();
        let place = |id: &u64| profile.location.iter().find(|l| l.id == *id).unwrap();
        let function = |line: &proto::Line| {
            let function = profile.function.iter().find(|f| f.id == line.function_id);
            text(function.unwrap().name)
        };
        let all = |location: &proto::Location| {
            let names: Vec<String> = location.line.iter().map(function).collect();
            names.join("<")
        };
        places.iter().map(|id| all(place(id))).collect()
    }

    #[test]
    fn samples_have_their_stacks_and_weights() {
        let profile = written(ProfileMode::Cpu, Duration::from_secs(1) / 99);
        assert_eq!(profile.string_table[0], "");
        let sample = &profile.sample[0];
        assert_eq!(sample.value, [24, 2 * 121_212_121]);
        assert_eq!(
            names(&profile, &sample.location_id),
            ["vfs_read", "do_syscall_64", "", "evalcommand<evaltree", ""]
        );
        assert_eq!(profile.period, 10_101_010);
        assert_eq!(profile.duration_nanos, 10_000_000_000);
        let dash = profile.mapping.iter().find(|mapping| {
            profile.string_table[usize::try_from(mapping.filename).unwrap()] == "/usr/bin/dash"
        });
        let dash = dash.expect("the program's own code").id;
        let of_dash = profile.location.iter().find(|l| l.mapping_id == dash);
        assert_eq!(of_dash.map(|l| l.address), Some(0x7345));
        // What nothing is known of is an address without a mapping.
        let last = profile.location.iter().find(|l| l.mapping_id == 0);
        assert_eq!(last.map(|l| l.address), Some(0x7ffd_0000_1000));
    }

    #[test]
    fn waits_are_counted_and_timed() {
        let profile = written(ProfileMode::OffCpu, Duration::ZERO);
        let types: Vec<&str> = profile
            .sample_type
            .iter()
            .flat_map(|t| [t.kind, t.unit])
            .map(|at| profile.string_table[usize::try_from(at).unwrap()].as_str())
            .collect();
        assert_eq!(types, ["waits", "count", "off_cpu", "nanoseconds"]);
        assert_eq!(profile.sample[0].value, [6, 3_000_000_000]);
        assert_eq!(
            names(&profile, &profile.sample[0].location_id),
            ["[preempted]", "__schedule"]
        );
    }
}
