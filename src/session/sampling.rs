//! Whom a session listens to when it cannot, or need not, hear everybody.

use std::num::NonZeroU32;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// Which processes' events are delivered. A process is heard fully or, of a kind, not at all, so that what it did stays
/// in one piece; what is left out is counted by kind and told in the stream. Execs, forks, exits, denials and kills for
/// want of memory are always delivered.
///
/// ```
/// use stockade::Sampling;
/// assert_eq!("1/10".parse::<Sampling>()?, Sampling::one_in(10)?);
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sampling {
    /// Everybody, as long as the ring has room: from half full on fewer processes of the kinds that come by the
    /// thousand, from three quarters on of all; the last sixteenth is for what is always delivered.
    #[default]
    Adaptive,
    /// One process in so many, chosen by its identity; fewer when the ring fills up.
    OneIn(NonZeroU32),
    /// Everybody. When the ring is full, records are lost as they come, execs too.
    All,
}

impl Sampling {
    /// One process in so many.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage): 0.
    pub fn one_in(processes: u32) -> Result<Self> {
        match NonZeroU32::new(processes) {
            Some(n) => Ok(Sampling::OneIn(n)),
            None => Err(Error::new(ErrorKind::Usage, "one process in 0 is nobody")),
        }
    }

    /// Of so many processes one is chosen.
    #[cfg_attr(not(stockade_kernel), allow(dead_code))]
    pub(crate) fn processes(self) -> u32 {
        match self {
            Sampling::OneIn(n) => n.get(),
            Sampling::Adaptive | Sampling::All => 1,
        }
    }
}

/// `all`, `adaptive` or `1/N`.
impl FromStr for Sampling {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "all" => return Ok(Sampling::All),
            "adaptive" => return Ok(Sampling::Adaptive),
            _ => {}
        }
        text.strip_prefix("1/")
            .and_then(|n| n.parse().ok())
            .and_then(|n| Sampling::one_in(n).ok())
            .ok_or_else(|| {
                Error::new(ErrorKind::Usage, format!("\"{text}\" is no way to sample"))
                    .with_hint("name 1/N for one process in N, adaptive, or all")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_sample_are_read_from_text() {
        assert_eq!("all".parse::<Sampling>().unwrap(), Sampling::All);
        assert_eq!("adaptive".parse::<Sampling>().unwrap(), Sampling::default());
        assert_eq!("1/7".parse::<Sampling>().unwrap().processes(), 7);
        for wrong in ["", "1/0", "1/", "2/3", "1/-1", "10", "1/99999999999", "ALL"] {
            let refused = wrong.parse::<Sampling>().unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Usage, "{wrong}");
        }
    }
}
