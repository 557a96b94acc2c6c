//! Processes that start programs, are created and end.

use super::Line;
use crate::event::{Clock, Exec, Exit, Fork, Namespaces, Process, ProcessSummary, names};

impl Line<'_> {
    pub(super) fn exec(&mut self, e: &Exec, process: &Process) {
        self.string(key!("process.executable"), &e.executable.path);
        self.raw(key!("process.args"));
        self.list(e.args.iter().map(String::as_str));
        self.number(key!("process.args_count"), e.args.len());
        self.number(key!("stockade.args_bytes"), e.args_bytes);
        self.flag(key!("stockade.args_truncated"), e.args_truncated);
        if !e.env.is_empty() {
            let name = |variable| str::split_once(variable, '=').map_or(variable, |(name, _)| name);
            self.raw(key!("stockade.env_names"));
            self.list(e.env.iter().map(|variable| name(variable)));
        }
        if e.env.iter().any(|variable| variable.contains('=')) {
            self.raw(key!("process.env_vars"));
            self.list(e.env.iter().map(String::as_str));
        }
        self.flag(key!("stockade.env_truncated"), e.env_truncated);
        self.string(key!("process.working_directory"), &e.cwd.path);
        self.flag(key!("stockade.cwd_truncated"), e.cwd.truncated);
        self.path_flags(&e.executable);
        self.file(&e.file);
        if let Some(script) = &e.script {
            self.string(key!("stockade.script"), script);
        }
        if let Some(interpreter) = &e.interpreter {
            self.string(key!("stockade.interpreter"), interpreter);
        }
        if let Some(fileless) = e.fileless {
            self.string(key!("stockade.fileless"), fileless.name());
        }
        if let Some(terminal) = &e.terminal {
            self.string(key!("stockade.tty"), &terminal.name);
            self.number(key!("process.tty.char_device.major"), terminal.major);
            self.number(key!("process.tty.char_device.minor"), terminal.minor);
        }
        if let Some(uid) = e.login_uid {
            self.quoted(key!("stockade.login_uid"), uid);
        }
        if e.effective_uid != process.uid {
            self.quoted(key!("user.effective.id"), e.effective_uid);
        }
        if e.effective_gid != process.gid {
            self.quoted(key!("user.effective.group.id"), e.effective_gid);
        }
        self.namespaces(
            [
                key!("stockade.namespaces.cgroup"),
                key!("stockade.namespaces.ipc"),
                key!("stockade.namespaces.mnt"),
                key!("stockade.namespaces.net"),
                key!("stockade.namespaces.pid"),
                key!("stockade.namespaces.time"),
                key!("stockade.namespaces.user"),
                key!("stockade.namespaces.uts"),
            ],
            &e.namespaces,
        );
        let Some(gained) = e.gained else {
            return self.flag(key!("stockade.gained_unknown"), true);
        };
        self.flag(key!("stockade.setuid"), gained.user);
        self.flag(key!("stockade.setgid"), gained.group);
        if gained.capabilities != 0 {
            self.flags(key!("stockade.capabilities_gained"), |each| {
                names::capabilities(gained.capabilities, each)
            });
        }
    }

    pub(super) fn fork(&mut self, e: &Fork, clock: &Clock, id: &mut String) {
        self.number(key!("stockade.child.pid"), e.child.pid);
        self.entity(key!("stockade.child.entity_id"), e.child, clock, id);
        self.number(key!("stockade.child.parent.pid"), e.child_parent.pid);
        self.entity(
            key!("stockade.child.parent.entity_id"),
            e.child_parent,
            clock,
            id,
        );
        self.namespaces(
            [
                key!("stockade.child.namespaces.cgroup"),
                key!("stockade.child.namespaces.ipc"),
                key!("stockade.child.namespaces.mnt"),
                key!("stockade.child.namespaces.net"),
                key!("stockade.child.namespaces.pid"),
                key!("stockade.child.namespaces.time"),
                key!("stockade.child.namespaces.user"),
                key!("stockade.child.namespaces.uts"),
            ],
            &e.namespaces,
        );
    }

    pub(super) fn exit(&mut self, e: &Exit) {
        self.optional(key!("process.exit_code"), e.code);
        self.optional(key!("stockade.signal"), e.signal);
        self.flag(key!("stockade.core_dumped"), e.core_dumped);
        self.number(key!("stockade.cpu.user_ns"), e.user_ns);
        self.number(key!("stockade.cpu.system_ns"), e.system_ns);
        self.number(key!("stockade.max_rss_bytes"), e.max_rss_bytes);
        self.number(key!("event.duration"), e.lifetime_ns);
    }

    pub(super) fn process_summary(&mut self, e: &ProcessSummary) {
        self.number(key!("stockade.cpu.user_ns"), e.user_ns);
        self.number(key!("stockade.cpu.system_ns"), e.system_ns);
        self.optional(key!("stockade.cpu.run_delay_ns"), e.run_delay_ns);
        for (key, value) in [
            (
                key!("stockade.cpu.voluntary_switches"),
                e.voluntary_switches,
            ),
            (
                key!("stockade.cpu.involuntary_switches"),
                e.involuntary_switches,
            ),
        ] {
            self.number(key, value);
        }
        self.optional(key!("stockade.threads"), e.threads);
        self.flag(key!("stockade.ended"), e.has_ended());
        self.optional(key!("process.exit_code"), e.code);
        self.optional(key!("stockade.signal"), e.signal);
        self.flag(key!("stockade.core_dumped"), e.core_dumped);
        self.number(key!("stockade.window_ns"), e.window_ns);
    }

    /// Those that are known, in the order of their names.
    fn namespaces(&mut self, keys: [&[u8]; 8], namespaces: &Namespaces) {
        for (key, inode) in keys.into_iter().zip(namespaces.all()) {
            self.optional(key, inode);
        }
    }
}
