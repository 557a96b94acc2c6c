//! The privileged tests: what the kernel really refuses and reports. Run by scripts/vm-test.sh, as root.
//!
//! Called as `vm --helper OUT STEP…` this program performs system calls for the tests, see `helper.rs`.
#![cfg_attr(not(target_os = "linux"), allow(missing_docs))]

#[cfg(target_os = "linux")]
mod bypass;
#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod contacts;
#[cfg(target_os = "linux")]
mod depth;
#[cfg(target_os = "linux")]
mod differential;
#[cfg(target_os = "linux")]
mod disk;
#[cfg(target_os = "linux")]
mod evasion;
#[cfg(target_os = "linux")]
mod fence;
#[cfg(target_os = "linux")]
mod file;
#[cfg(target_os = "linux")]
mod file_summary;
#[cfg(target_os = "linux")]
mod filter;
#[cfg(target_os = "linux")]
mod guard;
#[cfg(target_os = "linux")]
mod harness;
#[cfg(target_os = "linux")]
mod helper;
#[cfg(target_os = "linux")]
mod hosts;
#[cfg(target_os = "linux")]
mod kill;
#[cfg(target_os = "linux")]
mod lifetime;
#[cfg(target_os = "linux")]
mod limits;
#[cfg(target_os = "linux")]
mod lockout;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod memory_allocations;
#[cfg(target_os = "linux")]
mod monitor;
#[cfg(target_os = "linux")]
mod mounts;
#[cfg(target_os = "linux")]
mod net;
#[cfg(target_os = "linux")]
mod pins;
#[cfg(target_os = "linux")]
mod places;
#[cfg(target_os = "linux")]
mod pressure;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod profile;
#[cfg(target_os = "linux")]
mod programs;
#[cfg(target_os = "linux")]
mod recording;
#[cfg(target_os = "linux")]
mod refusals;
#[cfg(target_os = "linux")]
mod reload;
#[cfg(target_os = "linux")]
mod scope;
#[cfg(target_os = "linux")]
mod sensor;
#[cfg(target_os = "linux")]
mod sockets;
#[cfg(target_os = "linux")]
mod starters;
#[cfg(target_os = "linux")]
mod subjects;
#[cfg(target_os = "linux")]
mod summaries;
#[cfg(target_os = "linux")]
mod transparency;
#[cfg(target_os = "linux")]
mod variants;
#[cfg(target_os = "linux")]
mod written;

#[cfg(target_os = "linux")]
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let code = if args.get(1).is_some_and(|a| a == "--helper") {
        helper::main(&args[2..])
    } else if args.get(1).is_some_and(|a| a == "--process") {
        process::main(&args[2..])
    } else if args.get(1).is_some_and(|a| a == "--net") {
        net::main(&args[2..])
    } else if args.get(1).is_some_and(|a| a == "--memory") {
        memory::main(&args[2..])
    } else if args.get(1).is_some_and(|a| a == "--allocate") {
        memory_allocations::main(&args[2..])
    } else if args.get(1).is_some_and(|a| a == "--eat") {
        memory::eat(&args[2..])
    } else if args.get(1).is_some_and(|a| a == "--storm") {
        pressure::main(&args[2..])
    } else if args.get(1).is_some_and(|a| a == "--burn") {
        profile::burn(&args[2..])
    } else if args.get(1).is_some_and(|a| a == "--doze") {
        profile::doze(&args[2..])
    } else if args.get(1).is_some_and(|a| a == "--files") {
        file_summary::main(&args[2..])
    } else if args.get(1).is_some_and(|a| a == "--many") {
        summaries::main(&args[2..])
    } else if args.get(1).is_some_and(|a| a == "--vfork") {
        kill::vfork(&args[2..])
    } else if args.get(1).is_some_and(|a| a == "--operations") {
        transparency::main(&args[2..])
    } else {
        let tests: Vec<harness::Test> = [
            variants::TESTS,
            fence::TESTS,
            places::TESTS,
            depth::TESTS,
            evasion::TESTS,
            programs::TESTS,
            subjects::TESTS,
            written::TESTS,
            contacts::TESTS,
            hosts::TESTS,
            sockets::TESTS,
            refusals::TESTS,
            transparency::TESTS,
            starters::TESTS,
            calls::TESTS,
            scope::TESTS,
            lockout::TESTS,
            reload::TESTS,
            pins::TESTS,
            guard::TESTS,
            lifetime::TESTS,
            limits::TESTS,
            differential::TESTS,
            kill::TESTS,
            monitor::TESTS,
            process::TESTS,
            net::TESTS,
            memory::TESTS,
            memory_allocations::TESTS,
            disk::TESTS,
            recording::TESTS,
            pressure::TESTS,
            sensor::TESTS,
            profile::TESTS,
            file::TESTS,
            file_summary::TESTS,
            filter::TESTS,
            summaries::TESTS,
        ]
        .into_iter()
        .flatten()
        .copied()
        .collect();
        harness::main(&harness::mixed(tests))
    };
    std::process::exit(code);
}

#[cfg(not(target_os = "linux"))]
fn main() {}
