//! The program: parse, dispatch, map the error to an exit code.

#[cfg(target_os = "linux")]
mod cli;

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    cli::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("stockade: stockade watches and fences on Linux only");
    ExitCode::from(stockade::ErrorKind::Unsupported.exit_code())
}
