//! The monitors: one file each, named like its `.bpf.c`, and the one list that registers them.

#[cfg(stockade_kernel)]
mod file;
#[cfg(stockade_kernel)]
mod process;

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};
#[cfg(stockade_kernel)]
use crate::kernel::{Object, Probe};

/// Registers the monitors: name on the command line, variant, module, object, what it reports. The command line, the
/// doctor and the documentation tables read this list.
macro_rules! monitors {
    ($($name:literal => $variant:ident, $module:ident: $what:literal;)+) => {
        /// A source of events.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Monitor {
            $(#[doc = $what] $variant,)+
        }

        impl Monitor {
            /// All of them.
            pub const ALL: &'static [Monitor] = &[$(Monitor::$variant),+];

            /// Its name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Monitor::$variant => $name,)+ }
            }

            /// What it reports, in one sentence.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self { $(Monitor::$variant => $what,)+ }
            }

            #[cfg(stockade_kernel)]
            pub(crate) fn parts(self) -> (Object, &'static [Probe]) {
                match self { $(Monitor::$variant => (Object::$variant, $module::PROBES),)+ }
            }
        }
    };
}

monitors! {
    "process" => Process, process: "Processes that start programs, are created and end.";
    "file" => File, file: "Files that are opened, removed and renamed, with the result.";
}

impl fmt::Display for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Monitor {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Monitor::ALL
            .iter()
            .copied()
            .find(|m| m.name() == name)
            .ok_or_else(|| {
                let names: Vec<&str> = Monitor::ALL.iter().map(|m| m.name()).collect();
                Error::new(ErrorKind::Usage, format!("there is no monitor \"{name}\""))
                    .with_hint(format!("the monitors are {}", names.join(", ")))
            })
    }
}
