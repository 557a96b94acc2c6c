//! The load generator: this program again, in a process of its own, so that a scope can hold it. One line in, one line out.

use std::ffi::CString;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::time::ClockId;

/// The first argument of a generator.
pub(crate) const FLAG: &str = "--generator";

/// What a generator did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) ns: f64,
    pub(crate) count: u64,
    /// Of one operation, the median over slices of the time: whoever else had the CPU in between is left out.
    pub(crate) ns_each: f64,
    /// The slowest hundredth of the slices takes this or more, per operation.
    pub(crate) p99: f64,
}

impl Done {
    pub(crate) fn per_second(self) -> f64 {
        self.count as f64 / self.ns * 1e9
    }
}

/// One generator, which waits for orders. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Generator {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Generator {
    pub(crate) fn start(cpu: usize) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([FLAG, &cpu.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take();
        let answers = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut this = Generator {
            child,
            orders,
            answers: BufReader::new(answers),
        };
        this.run("getppid", 1, "", 0)?;
        Ok(this)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts something: `amount` is milliseconds, or a number of calls for `opens`; `rate` is for `paced`.
    pub(crate) fn order(
        &mut self,
        what: &str,
        amount: u64,
        path: &str,
        rate: u64,
    ) -> io::Result<()> {
        let orders = self.orders.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(orders, "{what} {amount} {rate} {path}")?;
        orders.flush()
    }

    /// Waits for what was started.
    pub(crate) fn answer(&mut self) -> io::Result<Done> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let numbers: Vec<f64> = line
            .split_whitespace()
            .map_while(|w| w.parse().ok())
            .collect();
        match numbers[..] {
            [ns, count, ns_each, p99] => Ok(Done {
                ns,
                count: count as u64,
                ns_each,
                p99,
            }),
            _ => Err(io::Error::other(format!(
                "the load generator failed: {}",
                line.trim()
            ))),
        }
    }

    pub(crate) fn run(
        &mut self,
        what: &str,
        amount: u64,
        path: &str,
        rate: u64,
    ) -> io::Result<Done> {
        self.order(what, amount, path, rate)?;
        self.answer()
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.orders = None;
        // One that is busy does not see the end of its orders.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The generator's own main.
pub(crate) fn main(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    let _ = rustix::thread::sched_setaffinity(None, &set);
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let done = obey(&line);
        let told = match done {
            Ok(d) => writeln!(out, "{} {} {} {}", d.ns, d.count, d.ns_each, d.p99),
            Err(e) => writeln!(out, "{line}: {e}"),
        };
        if told.and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

fn obey(line: &str) -> io::Result<Done> {
    let mut words = line.splitn(4, ' ');
    let what = words.next().unwrap_or_default();
    let mut number = || words.next().and_then(|w| w.parse::<u64>().ok());
    let (Some(amount), Some(rate)) = (number(), number()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let path = CString::new(words.next().unwrap_or_default())?;
    let ms = amount * 1_000_000;
    match what {
        "getppid" => timed(ms, 256, || {
            // SAFETY: getppid takes nothing and cannot fail; through syscall(2), so that no C library caches it.
            unsafe { libc::syscall(libc::SYS_getppid) };
            Ok(())
        }),
        "open" => timed(ms, 16, || open_close(&path)),
        "refused" => timed(ms, 16, || match open_close(&path) {
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => Ok(()),
            Err(e) => Err(e),
            Ok(()) => Err(io::Error::other("was not refused")),
        }),
        "exec" => timed(ms, 1, || fork_exec_wait(&path)),
        "opens" => {
            let start = now();
            for _ in 0..amount {
                open_close(&path)?;
            }
            Ok(done(now() - start, amount, Vec::new()))
        }
        "paced" => paced(ms, rate, &path),
        "pread" => {
            let file = std::fs::File::open(path.to_str().unwrap_or_default())?;
            read_again(ms, &file)
        }
        "direct" => {
            let mut options = std::fs::OpenOptions::new();
            let options = options.read(true).custom_flags(libc::O_DIRECT);
            read_again(ms, &options.open(path.to_str().unwrap_or_default())?)
        }
        "map" => timed(ms, 16, map_touch_unmap),
        "tcp" => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr()?;
            timed(ms, 1, || {
                let near = TcpStream::connect(address)?;
                let (far, _) = listener.accept()?;
                reset_on_close(&near)?;
                drop((near, far));
                Ok(())
            })
        }
        "udp" => {
            let (near, far) = (
                UdpSocket::bind("127.0.0.1:0")?,
                UdpSocket::bind("127.0.0.1:0")?,
            );
            near.connect(far.local_addr()?)?;
            let mut got = [0; 64];
            timed(ms, 16, || {
                near.send(&[1; 64])?;
                far.recv(&mut got).map(|_| ())
            })
        }
        "spin" => timed(ms, 1, || {
            let mut n = 1u64;
            for _ in 0..10_000 {
                n = std::hint::black_box(n.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            }
            std::hint::black_box(n);
            Ok(())
        }),
        "pipe" => ping_pong(ms),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn now() -> u64 {
    let t = rustix::time::clock_gettime(ClockId::Monotonic);
    t.tv_sec.unsigned_abs() * 1_000_000_000 + t.tv_nsec.unsigned_abs()
}

/// Repeats `one` for so long; looks at the clock once in `chunk` turns.
fn timed(ns: u64, chunk: u64, mut one: impl FnMut() -> io::Result<()>) -> io::Result<Done> {
    let mut slices = Vec::with_capacity(65_536);
    let start = now();
    let mut last = start;
    loop {
        for _ in 0..chunk {
            one()?;
        }
        let after = now();
        slices.push((after - last) as f64 / chunk as f64);
        last = after;
        if after - start >= ns {
            return Ok(done(after - start, slices.len() as u64 * chunk, slices));
        }
    }
}

fn done(ns: u64, count: u64, mut slices: Vec<f64>) -> Done {
    slices.sort_by(f64::total_cmp);
    let at = |share: usize| slices.get(slices.len() * share / 100);
    Done {
        ns: ns as f64,
        count,
        ns_each: at(50).copied().unwrap_or(0.0),
        p99: at(99).copied().unwrap_or(0.0),
    }
}

fn open_close(path: &CString) -> io::Result<()> {
    // SAFETY: `path` ends with NUL and outlives the call; the descriptor is closed once, by us.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::close(fd);
    }
    Ok(())
}

/// The first 4 KiB of a file, again and again.
fn read_again(ns: u64, file: &std::fs::File) -> io::Result<Done> {
    // O_DIRECT wants it aligned.
    #[repr(align(4096))]
    struct Block([u8; 4096]);
    let mut block = Box::new(Block([0; 4096]));
    timed(ns, 4, || match file.read_at(&mut block.0, 0)? {
        4096 => Ok(()),
        n => Err(io::Error::other(format!("read {n} bytes of 4096"))),
    })
}

/// Nothing of it is left in TIME_WAIT, of which a machine has room for so many.
fn reset_on_close(socket: &TcpStream) -> io::Result<()> {
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the value outlives the call and has the size that is named.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const at_once).cast(),
            size_of_val(&at_once) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn map_touch_unmap() -> io::Result<()> {
    const BYTES: usize = 64 << 10;
    // SAFETY: a new mapping, of which one byte is written, and which is gone before anybody else has its address.
    unsafe {
        let start = libc::mmap(
            std::ptr::null_mut(),
            BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        start.cast::<u8>().write_volatile(1);
        libc::munmap(start, BYTES);
    }
    Ok(())
}

/// A byte to a child that sends it back, both on one CPU: two switches each time.
fn ping_pong(ns: u64) -> io::Result<Done> {
    let (mut near, mut far) = std::os::unix::net::UnixStream::pair()?;
    // SAFETY: this process has one thread, and the child only reads and writes until nobody is there.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(near);
        let mut byte = [0];
        while far.read_exact(&mut byte).is_ok() && far.write_all(&byte).is_ok() {}
        // SAFETY: ends the child without the parent's clean-up.
        unsafe { libc::_exit(0) };
    }
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    drop(far);
    let mut byte = [1];
    let result = timed(ns, 4, || {
        near.write_all(&byte)?;
        near.read_exact(&mut byte)
    });
    drop(near);
    // SAFETY: our own child, which ends as nobody talks to it any more.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    result
}

fn fork_exec_wait(path: &CString) -> io::Result<()> {
    let argv = [path.as_ptr(), c"an-argument".as_ptr(), std::ptr::null()];
    let envp = [std::ptr::null()];
    // SAFETY: this process has one thread, and the child does nothing but execve and _exit; the arrays end with NULL.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr());
            libc::_exit(127);
        }
        let mut status = 0;
        if pid < 0 || libc::waitpid(pid, &raw mut status, 0) != pid {
            return Err(io::Error::last_os_error());
        }
        if status != 0 {
            return Err(io::Error::other(format!("wait status {status}")));
        }
    }
    Ok(())
}

/// So many opens a second, in bursts of a millisecond's worth; late ones are made up for.
fn paced(ns: u64, rate: u64, path: &CString) -> io::Result<Done> {
    let start = now();
    let mut count = 0;
    loop {
        let spent = now() - start;
        if spent >= ns {
            return Ok(done(spent, count, Vec::new()));
        }
        while count < spent * rate / 1_000_000_000 {
            open_close(path)?;
            count += 1;
        }
        std::thread::sleep(std::time::Duration::from_micros(900));
    }
}
