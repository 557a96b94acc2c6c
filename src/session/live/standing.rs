//! What a session does for its fence to be known to others, and to outlive it.

use super::{Kind, Live, no_fence};
use crate::Event;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{FenceState, Gap};
use crate::fence::record::{Beat, Record};
use crate::fence::{Former, Place, is_canary, lost};
use crate::kernel::{Loader, boot_ns};
use crate::policy::RuleSet;
use crate::recording::Rules;
use crate::wire::TaskKey;

/// What is said of a fence to others, but for what itself knows.
pub(super) fn about(
    scope: String,
    own_key: TaskKey,
    state: &FenceState,
    rules: &RuleSet,
    loader: &Loader,
) -> Result<Record> {
    let now = boot_ns();
    Ok(Record {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        policy: state.policy.clone(),
        mode: state.mode.clone(),
        mechanism: state.mechanism.clone(),
        identity: state.identity.clone(),
        scope,
        tgid: u32::try_from(own_key.tgid).unwrap_or(0),
        start_ns: own_key.start_ns,
        uid: rustix::process::getuid().as_raw(),
        since_ns: now,
        policy_since_ns: now,
        reloads: state.reloads,
        armed_map: 0,
        actions_map: loader.own_map("stk_actions")?.id()?,
        rules: numbered(rules),
        pinned: None,
        links: Vec::new(),
    })
}

/// The rules of a policy; the number of the first one is the fence's to know.
fn numbered(rules: &RuleSet) -> Rules {
    let (names, lines) = rules.numbered();
    Rules {
        first: 0,
        hosts: Vec::new(),
        names,
        lines,
    }
}

impl Live {
    pub(crate) fn pin(&mut self, name: &str, on: &mut dyn FnMut(&Event)) -> Result<()> {
        let Some(fence) = &mut self.fence else {
            return Err(no_fence("it cannot be pinned"));
        };
        if let Some(name) = fence.pinned() {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("the fence is pinned already, as {name}"),
            ));
        }
        let place = Place::take(name)?;
        let former = place.former(&self.asker.alive()?)?;
        if let Some(former) = &former
            && self.resolved.follows_tasks()
            && let Some(tasks) = former.tasks()?
        {
            self.resolved.take_over(&tasks, &self.loader, &self.asker)?;
        }
        if let Some(former) = &former {
            fence.take_over(former, &self.loader)?;
        }
        let inbox = former.as_ref().map(Former::inbox).transpose()?;
        fence.pin(place, &self.following, &self.asker, &self.loader)?;
        let ready = self.publish().and_then(|()| match &former {
            Some(former) => former.disarm(),
            None => Ok(()),
        });
        if let (Err(_), Some(fence)) = (&ready, &mut self.fence) {
            fence.give_up_pinning()?;
            self.publish()?;
        }
        ready?;
        if let Some(fence) = &self.fence {
            fence.settle()?;
        }
        if let Some(state) = &mut self.certificate.fence {
            state.pinned = Some(name.to_owned());
        }
        if let (Some(former), Some(mut inbox)) = (former, inbox) {
            let (records, lost) = (inbox.unread()?, inbox.lost());
            let count = records.iter().filter(|record| !is_canary(record)).count();
            let (rules, alive_ns) = match former.about {
                Some((record, beat)) => (record.rules, beat.alive_ns),
                None => (Rules::default(), boot_ns()),
            };
            let alone = boot_ns().saturating_sub(alive_ns);
            let lost = lost.unwrap_or(0);
            let gap = Gap::new(name, alone, count.try_into().unwrap_or(u64::MAX), lost);
            self.remark(Kind::Gap(gap), on);
            if lost > 0 {
                self.certificate.incomplete_reasons.push(format!(
                    "{lost} denials were lost while nobody looked after the fence"
                ));
            }
            self.delivery.set_rules(rules);
            for record in records.iter().filter(|record| !is_canary(record)) {
                self.delivery.deliver(record, on);
            }
            if let Some(about) = &self.about {
                self.delivery.set_rules(about.rules.clone());
            }
        }
        Ok(())
    }

    pub(crate) fn unpin(&mut self) -> Result<()> {
        let Some(fence) = &mut self.fence else {
            return Err(no_fence("it cannot be unpinned"));
        };
        fence.unpin()?;
        if let Some(state) = &mut self.certificate.fence {
            state.pinned = None;
        }
        self.publish()
    }

    /// Says of the fence as it is now what others can read.
    pub(super) fn publish(&mut self) -> Result<()> {
        let beat = self.sign_of_life();
        let (Some(fence), Some(about)) = (&mut self.fence, &mut self.about) else {
            return Ok(());
        };
        about.rules.first = fence.first_rule();
        about.rules.hosts = fence.hosts();
        fence.publish(about.clone(), beat, &self.loader)
    }

    /// The same of another policy.
    pub(super) fn publish_policy(&mut self, state: &FenceState, rules: &RuleSet) -> Result<()> {
        if let Some(about) = &mut self.about {
            about.policy.clone_from(&state.policy);
            about.mode.clone_from(&state.mode);
            about.mechanism.clone_from(&state.mechanism);
            about.identity.clone_from(&state.identity);
            about.policy_since_ns = boot_ns();
            about.reloads = state.reloads;
            about.rules = numbered(rules);
        }
        self.publish()
    }

    /// Says that somebody looks after the fence.
    pub(super) fn beat(&self) -> Result<()> {
        let beat = self.sign_of_life();
        self.fence.as_ref().map_or(Ok(()), |fence| fence.beat(beat))
    }

    fn sign_of_life(&self) -> Beat {
        Beat {
            alive_ns: boot_ns(),
            lost: lost(&self.drops.read()),
        }
    }
}
