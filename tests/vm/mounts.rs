//! File systems that the tests make themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::UnmountFlags;

use crate::harness::Ctx;

/// Something mounted, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        // A test that failed may have left it busy.
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Runs a command that must work, and gives what it says.
pub(crate) fn must(command: &str, args: &[&str]) -> String {
    let output = Command::new(command)
        .args(args)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{command}: {e}"));
    assert!(
        output.status.success(),
        "{command} {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the tests' own names are UTF-8")
}

pub(crate) fn mount(args: &[&str], at: &Path) -> Mount {
    let mut all = args.to_vec();
    all.push(text(at));
    must("mount", &all);
    Mount(at.to_owned())
}

pub(crate) fn bind(what: &Path, at: &Path) -> Mount {
    rustix::mount::mount_bind(what, at).unwrap_or_else(|e| panic!("bind {}: {e}", at.display()));
    Mount(at.to_owned())
}

/// Where the cgroup v2 tree is.
pub(crate) fn cgroup2() -> PathBuf {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    let mount = table.lines().find(|l| l.contains(" - cgroup2 "));
    let root = mount.and_then(|l| l.split(' ').nth(4));
    PathBuf::from(root.expect("cgroup2 is mounted"))
}

/// Built in where it cannot be loaded; mount will say when it is neither.
pub(crate) fn load(module: &str) {
    let _ = Command::new("/usr/sbin/modprobe")
        .args(["-q", module])
        .status();
}

/// An overlay of layers in the test's directory.
pub(crate) fn overlay(ctx: &Ctx, at: &Path) -> Mount {
    load("overlay");
    for layer in ["lower", "upper", "work"] {
        fs::create_dir(ctx.path(layer)).expect("a layer");
    }
    let options = format!(
        "lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work",
        text(&ctx.dir)
    );
    mount(&["-t", "overlay", "overlay", "-o", &options], at)
}

/// A new file system of this kind at `ctx.path("fs")`.
pub(crate) fn file_system(ctx: &Ctx, kind: &str) -> (PathBuf, Mount) {
    let at = ctx.path("fs");
    fs::create_dir(&at).expect("a mount point");
    for module in ["loop", kind] {
        load(module);
    }
    let mounted = match kind {
        "tmpfs" => mount(&["-t", "tmpfs", "tmpfs"], &at),
        "overlay" => overlay(ctx, &at),
        kind => {
            let image = ctx.path("image");
            let size = if kind == "xfs" { 400 << 20 } else { 130 << 20 };
            fs::File::create(&image)
                .and_then(|f| f.set_len(size))
                .expect("an image");
            let force = if kind == "ext4" { "-F" } else { "-f" };
            must(&format!("mkfs.{kind}"), &["-q", force, text(&image)]);
            mount(&["-o", "loop", "-t", kind, text(&image)], &at)
        }
    };
    (at, mounted)
}
