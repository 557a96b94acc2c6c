//! The one error type of the library.
//!
//! An [`Error`] says what failed in one line (`{}`), why in a chain (`{:#}`), and, where there is one thing the reader
//! can do about it, a [`hint`](Error::hint).

use std::error::Error as StdError;
use std::fmt;

/// What sort of failure an [`Error`] is; programs decide on this and not on the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A policy or profile is wrong: bad syntax, unknown key, a path that cannot be opened. Exit code 1.
    Policy,
    /// A recording is damaged, cut off, or of another version. Exit code 1.
    Recording,
    /// A scope does not resolve: no such process, no such cgroup. Exit code 40.
    Scope,
    /// A BPF object was refused by the kernel, or a program could not be attached. Exit code 40.
    Load,
    /// Enforcement was asked for and the canary was not refused. Exit code 40.
    NotEnforced,
    /// Rights are missing (root, or the capabilities that the message names). Exit code 40.
    Permission,
    /// This system or kernel cannot do it at all. Exit code 40.
    Unsupported,
    /// Reading or writing something failed. Exit code 40.
    Io,
    /// A builder was given values that do not go together. Exit code 2.
    Usage,
}

impl ErrorKind {
    /// The exit code that the program gives this kind: the one table that main, tests and docs read.
    ///
    /// ```
    /// assert_eq!(stockade::ErrorKind::Policy.exit_code(), 1);
    /// assert_eq!(stockade::ErrorKind::NotEnforced.exit_code(), 40);
    /// ```
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Policy | ErrorKind::Recording => 1,
            ErrorKind::Usage => 2,
            ErrorKind::Scope
            | ErrorKind::Load
            | ErrorKind::NotEnforced
            | ErrorKind::Permission
            | ErrorKind::Unsupported
            | ErrorKind::Io => 40,
        }
    }
}

/// A failure of the library.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What the library returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with its one line of text.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            kind,
            message: message.into(),
            hint: None,
            source: None,
        }))
    }

    /// Adds the one thing the reader can do about it.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the cause, which `{:#}` prints.
    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What sort of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The one thing the reader can do about it, if there is one.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if f.alternate() {
            let mut next = self.source();
            while let Some(cause) = next {
                write!(f, ": {cause}")?;
                next = cause.source();
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self:#}", self.0.kind)?;
        match self.hint() {
            Some(hint) => write!(f, " (hint: {hint})"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|s| s as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternate_form_prints_the_chain_and_plain_form_one_line() {
        let e = Error::new(ErrorKind::Load, "file_open__lsm was refused")
            .with_source(std::io::Error::other("R1 invalid mem access"))
            .with_hint("run 'stockade doctor'");
        assert_eq!(e.to_string(), "file_open__lsm was refused");
        assert_eq!(
            format!("{e:#}"),
            "file_open__lsm was refused: R1 invalid mem access"
        );
        assert_eq!(e.hint(), Some("run 'stockade doctor'"));
    }
}
