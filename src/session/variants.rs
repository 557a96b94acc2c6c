//! Every way that this version has to watch and to fence, tried.

use std::net::Ipv6Addr;

use crate::doctor::{VariantState, VariantTrial};
use crate::error::Result;
use crate::fence::{Mechanism, TRACING};
use crate::kernel::{
    KernelBtf, Loader, MapSizes, Object, Probe, Trial, Verdict, possible_cpus, securityfs_lsm,
};
use crate::monitor::{ALLOCATIONS, Monitor};
use crate::scope::FOLLOW;
use crate::wire::{
    CGROUPS_MAX, Config, PREFIXES_MAX, Ports, RANGES_MAX, Range, env_choice, filter_bit, scope_bit,
};

/// A ring of a page: nothing is written to it.
const RING_BYTES: u32 = 4096;

/// Loads each variant. Nothing is attached.
pub(crate) fn try_every() -> Result<Vec<VariantTrial>> {
    let bpf_is_active =
        securityfs_lsm().is_some_and(|list| list.split(',').any(|module| module == "bpf"));
    let cpus = possible_cpus()?;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let config = Config {
        self_start_ns: 1,
        self_tgid: std::process::id(),
        // No branch may be dead: what is not looked at is not tried.
        scope: scope_bit::TASKS | scope_bit::CGROUPS | scope_bit::UIDS | scope_bit::COMMS,
        cgroups: count(CGROUPS_MAX),
        cpus,
        ring_bytes: RING_BYTES,
        filter: filter_bit::ERRORS,
        min_latency_ns: 1,
        min_bytes: 1,
        sample: 2,
        thin: 1,
        process_limit: 1,
        env: env_choice::VALUES,
        kinds: u64::MAX,
        ranges: count(RANGES_MAX),
        ports: count(RANGES_MAX),
        prefixes: count(PREFIXES_MAX),
        pad: 0,
        range: [Range::new(Ipv6Addr::LOCALHOST, 128); RANGES_MAX],
        port: [Ports { first: 1, last: 2 }; RANGES_MAX],
    };
    let sizes = MapSizes::from([("stk_events", RING_BYTES), ("stk_denials", RING_BYTES)]);
    let mut loader = Loader::new(KernelBtf::read()?, config, sizes, bpf_is_active);
    let mut trials = Vec::new();
    for (object, probes) in objects() {
        trials.extend(loader.try_every(object, probes)?.into_iter().map(told));
    }
    if bpf_is_active {
        for (object, probes) in Mechanism::Lsm.parts() {
            trials.extend(loader.try_every(object, probes)?.into_iter().map(told));
        }
    } else {
        let parts = Mechanism::Lsm.parts().into_iter();
        trials.extend(
            parts
                .flat_map(|(_, probes)| probes)
                .flat_map(without_bpf_lsm),
        );
    }
    Ok(trials)
}

/// All but the LSM programs, which hang on the list of security modules.
fn objects() -> impl Iterator<Item = (Object, &'static [Probe])> {
    let monitors = Monitor::ALL.iter().flat_map(|&monitor| {
        monitor.forms().iter().map(move |&form| {
            let parts = monitor.parts(form);
            (parts.object, parts.probes)
        })
    });
    [(Object::Scope, FOLLOW), ALLOCATIONS]
        .into_iter()
        .chain(monitors)
        .chain(Mechanism::FmodRet.parts())
        .chain(TRACING)
}

fn told(trial: Trial) -> VariantTrial {
    let (state, reason) = match trial.verdict {
        Verdict::Loads => (VariantState::Loads, None),
        Verdict::NotApplicable(why) => (VariantState::NotApplicable, Some(why)),
        Verdict::Refused(e) => (VariantState::Refused, Some(e.to_string())),
    };
    VariantTrial {
        probe: trial.probe.to_owned(),
        variant: trial.variant.to_owned(),
        state,
        reason,
    }
}

/// It would attach and never be called.
fn without_bpf_lsm(probe: &Probe) -> impl Iterator<Item = VariantTrial> {
    probe.variants.iter().map(|variant| VariantTrial {
        probe: probe.name.to_owned(),
        variant: variant.name.to_owned(),
        state: VariantState::NotApplicable,
        reason: Some("bpf is not among the active security modules".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::kernel::{Program, program_names};

    /// A program that no probe names is never loaded, and so never tried.
    #[test]
    fn every_program_of_an_object_belongs_to_a_probe() {
        let all: Vec<_> = objects().chain(Mechanism::Lsm.parts()).collect();
        for &object in Object::ALL {
            let named: BTreeSet<&str> = all
                .iter()
                .filter(|(o, _)| *o == object)
                .flat_map(|(_, probes)| probes.iter())
                .flat_map(|p| p.variants)
                .flat_map(|v| v.programs)
                .map(Program::name)
                .collect();
            let compiled = program_names(object);
            let compiled: BTreeSet<&str> = compiled.iter().map(String::as_str).collect();
            assert_eq!(named, compiled, "{object:?}");
        }
    }
}
