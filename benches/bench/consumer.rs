//! A session in a thread of its own that writes JSON lines, as the program does.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::unix::thread::JoinHandleExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use stockade::event::Certificate;
use stockade::session::SessionBuilder;
use stockade::sink::Sink;

use crate::preflight;

/// As the program has it.
const FLUSH_AT: usize = 64 * 1024;
/// A file is written over from the start at this size: disks fill up, and this is about the writing.
const REWIND_AT: usize = 64 << 20;

/// Where the lines go.
#[derive(Debug, Clone)]
pub(crate) enum To {
    /// There are none: a callback looks at each event, as a program does that links the library.
    Callback,
    Null,
    File(PathBuf),
}

impl To {
    fn open(&self) -> io::Result<File> {
        match self {
            To::Callback | To::Null => File::options().write(true).open(Path::new("/dev/null")),
            To::File(path) => File::create(path),
        }
    }
}

/// What a session left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) certificate: Certificate,
    /// From the call of start to the first event in the callback.
    pub(crate) first: Option<Duration>,
}

impl Outcome {
    pub(crate) fn lost(&self) -> u64 {
        self.certificate.losses.iter().map(|l| l.count).sum()
    }
}

/// A running session.
#[derive(Debug)]
pub(crate) struct Consumer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<stockade::Result<Outcome>>,
    /// Programs of others.
    before: usize,
    /// How long start took.
    pub(crate) started: Duration,
}

impl Consumer {
    /// Returns when everything is attached.
    pub(crate) fn start(builder: SessionBuilder, to: &To) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let before = preflight::programs();
        let mut out = to.open()?;
        let formats = !matches!(to, To::Callback);
        let (tell, told): (_, Receiver<Duration>) = channel();
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let begin = Instant::now();
            let mut session = builder.start()?;
            let _ = tell.send(begin.elapsed());
            let mut sink = Sink::json();
            let mut buffer = Vec::with_capacity(2 * FLUSH_AT);
            let (mut first, mut written) = (None, 0);
            let mut clock = session.clock().clone();
            let mut flush = |buffer: &mut Vec<u8>| {
                written += buffer.len();
                if written > REWIND_AT {
                    written = 0;
                    let _ = out.rewind();
                }
                // A full disk shows in the figures, not here.
                let _ = out.write_all(buffer);
                buffer.clear();
            };
            while !asked.load(Ordering::Relaxed) {
                session.poll(Duration::from_millis(50), &mut |event| {
                    first.get_or_insert_with(|| begin.elapsed());
                    if !formats {
                        std::hint::black_box(event);
                        return;
                    }
                    sink.write(event, &clock, &mut buffer);
                    if buffer.len() >= FLUSH_AT {
                        flush(&mut buffer);
                    }
                })?;
                if clock != *session.clock() {
                    clock.clone_from(session.clock());
                }
                if !buffer.is_empty() {
                    flush(&mut buffer);
                }
            }
            let certificate = session.end(&mut |event| {
                sink.write(event, &clock, &mut buffer);
                if buffer.len() >= FLUSH_AT {
                    flush(&mut buffer);
                }
            })?;
            flush(&mut buffer);
            Ok(Outcome { certificate, first })
        });
        match told.recv() {
            Ok(started) => Ok(Consumer {
                stop,
                thread,
                before,
                started,
            }),
            // The thread ended before it could tell: it failed.
            Err(_) => match thread.join() {
                Ok(Err(e)) => Err(e.into()),
                _ => anyhow::bail!("the consumer died"),
            },
        }
    }

    /// CPU time the consumer's thread has used so far.
    pub(crate) fn cpu(&self) -> Duration {
        let mut clock = 0;
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the thread is not joined, so its handle is valid; both results are ours to write.
        let failed = unsafe {
            libc::pthread_getcpuclockid(self.thread.as_pthread_t(), &raw mut clock) != 0
                || libc::clock_gettime(clock, &raw mut time) != 0
        };
        if failed {
            return Duration::ZERO;
        }
        Duration::from_secs(time.tv_sec.unsigned_abs())
            + Duration::from_nanos(time.tv_nsec.unsigned_abs())
    }

    /// Ends the session, and waits until its programs are gone.
    pub(crate) fn end(self) -> anyhow::Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        let outcome = match self.thread.join() {
            Ok(outcome) => outcome?,
            Err(_) => anyhow::bail!("the consumer died"),
        };
        preflight::wait_for_programs(self.before)?;
        Ok(outcome)
    }
}
