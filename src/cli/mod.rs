//! The command line: arguments in, library calls out.

mod doctor;
mod enforce;
mod flame;
mod kill;
mod monitor;
mod output;
mod policy;
mod pprof;
mod replay;
mod reread;
mod run;
mod status;
mod stop;
mod unpin;
mod watch;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use stockade::policy::{Environment, Mode, RuleSet};
use stockade::session::SessionBuilder;
use stockade::{Error, ErrorKind, Sampling, Scope};

/// Every exit code that is not a command's own, once: --help prints this table, tests read it.
const EXIT_CODES: &str = "\
Exit codes:
  0   done, also when a policy denied something
  1   the policy is wrong: bad syntax, a path that does not exist, a case that fails; or a recording
      is damaged; or 'kill' left somebody
  2   wrong usage
  40  not watching, not fenced, or nobody killed: could not be loaded, attached or proved, or no
      such process or cgroup
  'run' passes on the command's own code (128+n for signal n) once the command has started; 127 and 126 when it
  cannot be found or executed, as in a shell.";

/// See what a program does, and make the kernel refuse the rest.
#[derive(Debug, Parser)]
#[command(name = "stockade", version, after_help = EXIT_CODES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Monitor(monitor::MonitorArgs),
    Run(run::RunArgs),
    Enforce(enforce::EnforceArgs),
    Status(status::StatusArgs),
    Unpin(unpin::UnpinArgs),
    Kill(kill::KillArgs),
    Replay(replay::ReplayArgs),
    Flame(flame::FlameArgs),
    Policy(policy::PolicyCommand),
    Why(why::WhyArgs),
    Doctor(doctor::DoctorArgs),
}

/// Ends like any other misuse: the sentence, the usage line, exit code 2.
fn usage(message: &str) -> ! {
    use clap::CommandFactory as _;
    Cli::command()
        .error(clap::error::ErrorKind::MissingRequiredArgument, message)
        .exit()
}

/// How a command ends when nothing failed: its exit code.
type Outcome = anyhow::Result<u8>;

pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Monitor(args) => monitor::main(args),
        Command::Run(args) => run::main(args),
        Command::Enforce(args) => enforce::main(args),
        Command::Status(args) => status::main(&args),
        Command::Unpin(args) => unpin::main(args),
        Command::Kill(args) => kill::main(args),
        Command::Replay(args) => replay::main(&args),
        Command::Flame(args) => flame::main(args),
        Command::Policy(command) => policy::main(&command),
        Command::Why(args) => why::main(&args),
        Command::Doctor(args) => doctor::main(&args),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => ExitCode::from(report(&error)),
    }
}

/// Prints an error with its chain and hint, and gives the exit code that goes with it.
fn report(error: &anyhow::Error) -> u8 {
    let ours = error.chain().find_map(|e| e.downcast_ref::<Error>());
    match ours {
        // Our own messages say what their cause is; the chain would say it twice.
        Some(e)
            if std::ptr::eq(error.root_cause(), e) || error.downcast_ref::<Error>().is_some() =>
        {
            eprintln!("stockade: {e}");
        }
        _ => eprintln!("stockade: {error:#}"),
    }
    if let Some(hint) = ours.and_then(Error::hint) {
        eprintln!("hint: {hint}");
    }
    ours.map_or(ErrorKind::Io.exit_code(), |e| e.kind().exit_code())
}

/// Who is meant by where they are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Scope")]
struct WhoArgs {
    /// This process alone
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// This process and all that it starts
    #[arg(long, value_name = "PID")]
    tree: Vec<u32>,
    /// This cgroup (v2) and all below it
    #[arg(long, value_name = "PATH")]
    cgroup: Vec<PathBuf>,
}

impl WhoArgs {
    fn add_to(self, mut scope: Scope) -> Scope {
        for pid in self.pid {
            scope = scope.pid(pid);
        }
        for pid in self.tree {
            scope = scope.tree(pid);
        }
        for path in self.cgroup {
            scope = scope.cgroup(path);
        }
        scope
    }
}

/// Who is watched or fenced.
#[derive(Debug, Args)]
#[command(next_help_heading = "Scope")]
struct ScopeArgs {
    #[command(flatten)]
    who: WhoArgs,
    /// Only processes of this user id
    #[arg(long, value_name = "UID")]
    uid: Vec<u32>,
    /// Only threads of this name, 15 bytes at most
    #[arg(long, value_name = "NAME")]
    comm: Vec<String>,
    /// The whole machine
    #[arg(long)]
    host: bool,
}

impl ScopeArgs {
    fn scope(self) -> Scope {
        let mut scope = Scope::new();
        if self.host {
            scope = scope.host();
        }
        scope = self.who.add_to(scope);
        for uid in self.uid {
            scope = scope.uid(uid);
        }
        for comm in self.comm {
            scope = scope.comm(comm);
        }
        scope
    }
}

/// How events are written.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// One line for people, or one JSON object a line (docs/EVENTS.md)
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// Write events to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the end record to this file too, as one JSON object
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
}

/// How events are taken in.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
struct IntakeArgs {
    /// Record the session to this file, for 'stockade replay'
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Size of the event ring in KiB, a power of two; losses are counted, never hidden
    #[arg(long, value_name = "KIB", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(4..=1 << 20))]
    ring_kib: u32,
    /// Whom to listen to: 1/N for one process in N, adaptive, or all even when the ring is full and records are lost
    #[arg(long, value_name = "HOW", default_value = "adaptive")]
    sample: Sampling,
    /// How many events a process may send in a second; the rest is counted and told
    #[arg(long, value_name = "EVENTS", value_parser = clap::value_parser!(u32).range(1..))]
    process_limit: Option<u32>,
}

impl IntakeArgs {
    fn apply(&self, builder: SessionBuilder) -> SessionBuilder {
        // At most 2^20 KiB, checked by clap; the largest is one too many for 32 bits of bytes.
        let builder = builder
            .ring_bytes(self.ring_kib.checked_mul(1024).unwrap_or(1 << 30))
            .sampling(self.sample)
            .process_limit(self.process_limit.unwrap_or(0));
        match &self.record {
            Some(path) => builder.record(path),
            None => builder,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// What policies take from whoever runs this.
#[derive(Debug, Args)]
struct EnvironmentArgs {
    /// A value for a variable of the policy, in place of the one that it declares
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable, global = true)]
    var: Vec<(String, String)>,
}

fn variable(written: &str) -> Result<(String, String), String> {
    match written.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it must be a name and a value, as in workspace=/home/ada/work".to_owned()),
    }
}

impl EnvironmentArgs {
    fn environment(&self) -> anyhow::Result<Environment> {
        use anyhow::Context as _;

        let cwd = std::env::current_dir().context("the working directory cannot be read")?;
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let mut env = Environment::new(home, cwd);
        for (name, value) in &self.var {
            if env.variables.insert(name.clone(), value.clone()).is_some() {
                usage(&format!("--var gives {name} twice"));
            }
        }
        Ok(env)
    }
}

/// What is refused.
#[derive(Debug, Args)]
#[command(next_help_heading = "Policy")]
struct PolicyArgs {
    /// The policy to enforce (docs/POLICY.md)
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Refuse every access to this file: open, exec, truncate, remove, rename, replace, link, change attributes
    #[arg(long, value_name = "PATH", num_args = 1..)]
    deny_file: Vec<PathBuf>,
    /// Refuse nothing; report what would have been refused
    #[arg(long)]
    audit: bool,
    /// How often the fence must refuse an access of stockade's own anew, such as 60s; 0s for only at the start
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = watch::time)]
    prove_every: Duration,
    /// Keep the fence from those whom it holds, root among them: its maps, the names that it is pinned by, and
    /// stockade itself
    #[arg(long)]
    guard: bool,
    /// Room for so many files, names, rules and addresses of each policy that is read later [default: twice what the first
    /// one has, at least 4096], and for so many files that are written [default: 262144]
    #[arg(long, value_name = "ENTRIES", value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    room: Option<u32>,
    #[command(flatten)]
    environment: EnvironmentArgs,
}

impl PolicyArgs {
    fn apply(&self, builder: SessionBuilder) -> SessionBuilder {
        let mut builder = builder.prove_every(self.prove_every);
        if let Some(room) = self.room {
            builder = builder.room(room);
        }
        match self.guard {
            true => builder.guard(),
            false => builder,
        }
    }

    /// The rules of the file and of the command line as one set.
    fn rules(&self) -> anyhow::Result<Option<RuleSet>> {
        let env = self.environment.environment()?;
        if self.policy.is_none() && !env.variables.is_empty() {
            usage("--var gives a value to a variable of a policy: give --policy FILE as well");
        }
        let mut rules = None;
        if let Some(path) = &self.policy {
            rules = Some(RuleSet::read(path, &env)?);
        }
        if !self.deny_file.is_empty() {
            let named = RuleSet::deny_files(self.deny_file.iter().cloned(), &env)?;
            rules = Some(match rules {
                Some(rules) => rules.merge(named)?,
                None => named,
            });
        }
        Ok(rules.map(|r| {
            if self.audit {
                r.with_mode(Mode::Audit)
            } else {
                r
            }
        }))
    }
}

/// A number of things, in words.
fn counted(n: impl TryInto<u64>, what: &str) -> String {
    let n = n.try_into().unwrap_or(u64::MAX);
    let plural = match what.ends_with('s') {
        _ if n == 1 => "",
        true => "es",
        false => "s",
    };
    format!("{n} {what}{plural}")
}
