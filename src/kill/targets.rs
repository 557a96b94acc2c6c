//! Everybody who is meant, found and held by descriptors; nobody is signalled here.

use std::collections::{HashMap, HashSet};

use super::cgroup::Cgroup;
use super::member::Member;
use super::protected::Protected;
use super::tree::{candidates, list};
use crate::enrich::Stat;
use crate::error::Result;
use crate::scope::{Scope, no_process};

#[derive(Debug)]
pub(super) struct Targets {
    pub(super) members: Vec<Member>,
    pub(super) cgroups: Vec<Cgroup>,
    protected: Protected,
    /// Whether any of them can grow.
    trees: bool,
}

impl Targets {
    /// Those that the scope names, with everybody that belongs to them now.
    ///
    /// # Errors
    ///
    /// `Scope`: something is not there. `Usage`: something must not be killed.
    pub(super) fn find(scope: &Scope) -> Result<Self> {
        let cgroups = scope.cgroups.iter().map(|path| Cgroup::open(path));
        let mut targets = Targets {
            members: Vec::new(),
            cgroups: cgroups.collect::<Result<_>>()?,
            protected: Protected::find(),
            trees: !scope.trees.is_empty(),
        };
        let named = scope.trees.iter().map(|pid| (*pid, true));
        for (pid, follows) in named.chain(scope.pids.iter().map(|pid| (*pid, false))) {
            if targets
                .members
                .iter()
                .any(|m| m.pid == pid && !m.has_ended())
            {
                continue;
            }
            let mut member = Member::open(pid)?.ok_or_else(|| no_process(pid))?;
            member.follows = follows;
            targets.admit(member, None)?;
        }
        targets.find_more()?;
        Ok(targets)
    }

    /// Whether there can be more of them than those that were named.
    pub(super) fn can_grow(&self) -> bool {
        self.trees || !self.cgroups.is_empty()
    }

    /// Finds those that have come since. False when nobody has: neither one that is held now, nor one that had ended
    /// before it could be, and may have left another one behind.
    pub(super) fn find_more(&mut self) -> Result<bool> {
        let before = self.members.len();
        let mut missed = false;
        if !self.cgroups.is_empty() {
            // It can have left.
            for member in &mut self.members {
                member.in_cgroup = false;
            }
        }
        for index in 0..self.cgroups.len() {
            self.find_in_cgroup(index)?;
        }
        if self.trees {
            missed = self.find_in_trees()?;
        }
        Ok(missed || self.members.len() > before)
    }

    fn find_in_cgroup(&mut self, index: usize) -> Result<()> {
        let cgroup = &self.cgroups[index];
        let known = self.known();
        let mut new = Vec::new();
        for pid in cgroup.processes()? {
            match known.get(&pid) {
                Some(&at) => self.members[at].in_cgroup = true,
                None => new.extend(Member::open(pid)?),
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        // Asked again now that they are held: a pid in the first list can have been taken over by somebody outside.
        let listed: HashSet<u32> = cgroup.processes()?.into_iter().collect();
        let what = format!("cgroup {}", cgroup.name());
        for mut member in new {
            if listed.contains(&member.pid) && !member.has_ended() {
                member.in_cgroup = true;
                self.admit(member, Some(&what))?;
            }
        }
        Ok(())
    }

    /// Level by level, from one list of all processes. True when somebody in the list was missed.
    fn find_in_trees(&mut self) -> Result<bool> {
        let rows = list()?;
        let mut tried = HashSet::new();
        let mut missed = false;
        loop {
            let mut known = self.known();
            known.retain(|_, at| self.members[*at].follows);
            for row in rows.iter().filter(|row| row.pid == row.session) {
                if let Some(&at) = known.get(&row.pid) {
                    self.members[at].leads = true;
                }
            }
            let parents: HashSet<u32> = known.keys().copied().collect();
            let leaders = self.members.iter().filter(|m| m.follows && m.leads);
            let sessions = leaders.map(|m| m.pid).collect();
            let mut any = false;
            for row in candidates(&rows, &parents, &sessions, &parents) {
                let pid = row.pid;
                if !tried.insert(pid) {
                    continue;
                }
                let Some(mut member) = Member::open(pid)? else {
                    missed |= !row.ended;
                    continue;
                };
                if !self.is_of_a_tree(&member.stat, &known) {
                    // Its parent was ours and has ended meanwhile; or only a session speaks for it that is nobody's of
                    // ours any more, and that is not enough.
                    missed |= parents.contains(&row.parent);
                    continue;
                }
                any = true;
                match self.known().get(&pid) {
                    // Named by its pid, or in a cgroup, as well.
                    Some(&at) => self.members[at].follows = true,
                    None => {
                        member.follows = true;
                        self.admit(member, Some("the tree"))?;
                    }
                }
            }
            if !any {
                return Ok(missed);
            }
        }
    }

    /// Whether what a process said of itself, while it was held, makes it one of a tree. Numbers count only while they
    /// cannot be anybody else's: a parent's while it runs, a session's while somebody of ours is in it.
    fn is_of_a_tree(&self, stat: &Stat, known: &HashMap<u32, usize>) -> bool {
        let parent = known.get(&stat.parent).map(|&at| &self.members[at]);
        if parent.is_some_and(|parent| !parent.has_ended()) {
            return true;
        }
        let ours = |m: &&Member| m.follows;
        let led = |m: &Member| m.leads && m.pid == stat.session;
        self.members.iter().filter(ours).any(led)
            && self
                .members
                .iter()
                .filter(ours)
                .filter(|m| m.is_left() || m.pid == stat.session)
                .any(|m| m.now().is_some_and(|now| now.session == stat.session))
    }

    /// Those that are not known to have ended, by their pids.
    fn known(&self) -> HashMap<u32, usize> {
        let left = self.members.iter().enumerate().filter(|(_, m)| m.is_left());
        left.map(|(at, m)| (m.pid, at)).collect()
    }

    fn admit(&mut self, member: Member, what: Option<&str>) -> Result<()> {
        match self.protected.refusal(&member, what) {
            Some(refusal) => Err(refusal),
            None => {
                self.members.push(member);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::kill::{Fate, Kill, Outcome};

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn shell(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped());
        // What a failed test leaves behind holds nobody up who reads our messages.
        command.stderr(Stdio::null()).spawn().unwrap()
    }

    fn first_line(child: &mut Child) -> String {
        use std::io::{BufRead as _, BufReader};
        let mut line = String::new();
        let out = child.stdout.as_mut().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    #[test]
    fn a_tree_has_the_children_and_theirs_and_a_process_is_alone() {
        let mut child = shell("sh -c 'sleep 1000 & echo $!; wait' & wait");
        let grandchild: u32 = first_line(&mut child).parse().unwrap();
        let tree = Targets::find(&Scope::new().tree(child.id())).unwrap();
        let pids: Vec<u32> = tree.members.iter().map(|m| m.pid).collect();
        assert_eq!(pids.len(), 3, "{pids:?}");
        assert_eq!((pids[0], pids[2]), (child.id(), grandchild));
        let alone = Targets::find(&Scope::new().pid(child.id())).unwrap();
        assert_eq!(alone.members.len(), 1);
        // Named twice, it is there once, with all that the stronger name means.
        let both = Scope::new()
            .pid(grandchild)
            .tree(child.id())
            .pid(child.id());
        let both = Targets::find(&both).unwrap();
        assert_eq!(both.members.len(), 3);
        assert!(both.members.iter().all(|m| m.follows));
        child.kill().unwrap();
        child.wait().unwrap();
        // The others are no children of ours.
        let left = Scope::new().pid(pids[1]).pid(grandchild);
        let report = Kill::new(left).grace(Duration::ZERO).run(|| false).unwrap();
        assert!(report.all_gone(), "{report:?}");
    }

    #[test]
    fn who_has_left_its_parent_and_not_the_session_is_of_the_tree() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "(sleep 1000 & echo $!); exec sleep 1001"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        // SAFETY: one system call between fork and exec.
        unsafe {
            command.pre_exec(|| rustix::process::setsid().map(|_| ()).map_err(Into::into));
        }
        let mut leader = command.spawn().unwrap();
        let left: u32 = first_line(&mut leader).parse().unwrap();
        // The shell that started it ends a moment after the line.
        let end = Instant::now() + Duration::from_secs(20);
        let is_shell = |pid| {
            Member::open(pid)
                .unwrap()
                .is_some_and(|m| m.stat.name == "sh")
        };
        while is_shell(Member::open(left).unwrap().unwrap().stat.parent) || is_shell(leader.id()) {
            assert!(Instant::now() < end, "{left} keeps its parent");
            std::thread::yield_now();
        }
        let tree = Targets::find(&Scope::new().tree(leader.id())).unwrap();
        let pids: Vec<u32> = tree.members.iter().map(|m| m.pid).collect();
        assert_eq!(pids, [leader.id(), left]);
        drop(tree);
        let kill = Kill::new(Scope::new().tree(leader.id()));
        let report = kill.run(|| false).unwrap();
        assert_eq!(report.fates().len(), 2, "{report:?}");
        let exited = |f: &Fate| f.outcome == Outcome::Exited;
        assert!(report.fates().iter().all(exited), "{report:?}");
        leader.wait().unwrap();
    }

    /// Our own child looks like a child of the one that is gone, whose pid we have taken over.
    #[test]
    fn children_of_a_process_that_took_over_the_pid_are_not_of_the_tree() {
        let root = shell("exec sleep 1000");
        let bystander = shell("exec sleep 1000");
        let mut targets = Targets::find(&Scope::new().tree(root.id())).unwrap();
        let stat = Member::open(bystander.id()).unwrap().unwrap().stat;
        let own = std::process::id();
        assert_eq!(stat.parent, own);
        targets.members[0].pid = own;
        let known = HashMap::from([(own, 0)]);
        assert!(targets.is_of_a_tree(&stat, &known), "while the parent runs");
        end(root);
        assert!(!targets.is_of_a_tree(&stat, &known));
        end(bystander);
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = Targets::find(&Scope::new().pid(1 << 30)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("there is no process {}", 1 << 30)
        );
    }

    #[test]
    fn a_tree_with_us_in_it_is_refused() {
        let parent = std::os::unix::process::parent_id();
        let error = Targets::find(&Scope::new().tree(parent)).unwrap_err();
        assert!(error.to_string().contains("is not killed"), "{error}");
        // Also where only somebody in it is protected.
        let own = Member::open(std::process::id()).unwrap().unwrap();
        let targets = Targets {
            members: Vec::new(),
            cgroups: Vec::new(),
            protected: Protected::find(),
            trees: true,
        };
        let refusal = targets.protected.refusal(&own, Some("the tree")).unwrap();
        assert!(refusal.to_string().starts_with("the tree is not killed"));
    }
}
