#!/usr/bin/env python3
"""Makes docs/BYPASSES.md of what the VM tests have shown (tests/vm/bypass.rs).

    bypasses.py collect ROW LOG [--some]   takes the lines out of a row's output; --some: not all of its tests have run
    bypasses.py write                      writes the page
    bypasses.py check                      fails when the page is not what was shown
"""

import difflib
import pathlib
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHOWN = ROOT / "target/vm/bypasses"
PAGE = ROOT / "docs/BYPASSES.md"
ANYWHERE = "-"


def rows():
    with open(ROOT / "tests/vm/kernels.toml", "rb") as table:
        return tomllib.load(table)


def classes():
    with open(ROOT / "tests/vm/bypasses.toml", "rb") as table:
        return tomllib.load(table)


def collect(row, log, some):
    """Keeps what each test has shown, one line each: test, way, place, outcome, by what."""
    lines = pathlib.Path(log).read_text(errors="replace").splitlines()
    new = [line.removeprefix("bypass\t") for line in lines if line.startswith("bypass\t")]
    kept = []
    place = SHOWN / row
    if some and place.exists():
        ran = {words[1].rstrip(":") for words in map(str.split, lines) if words[:1] in (["ok"], ["FAILED"], ["SKIP"])}
        kept = [line for line in place.read_text().splitlines() if line.split("\t")[0] not in ran]
    SHOWN.mkdir(parents=True, exist_ok=True)
    place.write_text("".join(line + "\n" for line in sorted(set(kept + new))))


def shown(table):
    """{way: {(row, place): {(outcome, by)}}} and the tests of each way."""
    outcomes, tests = {}, {}
    for row in table:
        path = SHOWN / row
        if not path.exists():
            raise SystemExit(f"bypasses: no results of row {row}: scripts/vm-test.sh all")
        for line in path.read_text().splitlines():
            test, way, place, outcome, by = line.split("\t")
            outcomes.setdefault(way, {}).setdefault((row, place), set()).add((outcome, by))
            tests.setdefault(way, set()).add(test)
    return outcomes, tests


def faults(outcomes):
    """What must not be: ways without a test, limits that limit nothing, outcomes that contradict each other."""
    known = {f"{name}/{way}" for name, a_class in classes().items() for way in a_class["ways"]}
    limited = {f"{name}/{way}" for name, a_class in classes().items() for way in a_class.get("limits", {})}
    wrong = [f"{way}: no test shows it" for way in sorted(known - outcomes.keys())]
    wrong += [f"{way}: not in the list" for way in sorted(outcomes.keys() - known)]
    wrong += [f"{way}: a limit of a way that is not in the list" for way in sorted(limited - known)]
    for way, by_place in outcomes.items():
        for (row, place), found in sorted(by_place.items()):
            if len({outcome for outcome, _ in found}) > 1:
                wrong.append(f"{way}: refused and let through on {row}, {place}")
        all_outcomes = {outcome for found in by_place.values() for outcome, _ in found}
        if way in limited and "passes" not in all_outcomes:
            wrong.append(f"{way}: it has a limit and is let through nowhere")
    return wrong


def cell(by_place, of_rows, places):
    """What came of a way on some rows: `lsm`: tmpfs, ext4 (5.10, 6.1); let through: overlay."""
    groups = {}
    for place in places:
        for row in of_rows:
            for outcome, by in by_place.get((row, place), ()):
                what = {"passes": "**let through**", "unarmed": "not armed"}.get(outcome) or f"`{by.split()[0]}`"
                groups.setdefault(what, {}).setdefault(place, []).append(row)
    tried = [row for row in of_rows if any((row, place) in by_place for place in places)]
    parts = []
    for what, where in groups.items():
        items = []
        for place, on in where.items():
            kernels = "" if on == tried == of_rows else ", ".join(row.split("-")[0] for row in on)
            items.append((place, kernels))
        if all(place == ANYWHERE for place, _ in items):
            kernels = items[0][1]
            parts.append(f"{what} ({kernels})" if kernels else what)
            continue
        names = [f"{place} ({kernels})" if kernels else place for place, kernels in items]
        parts.append(f"{what}: {', '.join(names)}")
    return "; ".join(parts) or "-"


def asked(by_place):
    """The kinds of access by which it was refused."""
    kinds = {" ".join(by.split()[1:]) for found in by_place.values() for outcome, by in found if outcome == "denied"}
    return " or ".join(f"`{kind.replace(',', '`, `')}`" for kind in sorted(kinds) if kind) or "-"


HEAD = """# Ways around the fence

What programs try to get around a rule, and what came of it on each kernel and file system that the tests run on. Nothing
here is written by hand but what is tried and why a limit is one: the tests in `tests/vm` say what they have seen, and
`make bypasses` makes this page of it. `make test` fails when the two differ, when a way has lost its test, and when
something is let through that the list of ways (`tests/vm/bypasses.toml`) does not have as a limit.

A test says that a way is refused when the call has failed inside the fence and a denial of the right rule was told of
that process. Most tests do the same outside the fence, where it works.

## Words

| word | meaning |
| --- | --- |
| `lsm`, `fmod_ret` | refused by a program of the fence: on a hook of the kernel's security modules, or on the function that calls them |
| `seccomp` | refused by a filter of system calls |
| `tracepoint` | the process was killed when it made the call |
| **let through** | a limit; the sentence says why, and what helps |
| not armed | the fence cannot tell such files apart there, and `stockade` ends with 40 before the command has begun |
| - | not tried: the kernel has no such thing, or needs no BPF for it and was tested with the other `lsm=` |

## Hooks

"asked as" is the kind of access that the denial has ([POLICY.md](POLICY.md)). These hooks of the kernel ask for each.

"""

HOOKS = """| kind | hooks |
| --- | --- |
| `read` | `file_open` |
| `write` | `file_open`, `inode_setattr` (truncation), `unix_stream_connect`, `unix_may_send`; `bpf_map` |
| `exec` | `file_open` (execve), `mmap_file`, `file_mprotect`; what was written is noted by `file_open`, `file_permission`, `mmap_file` |
| `create` | `inode_create`, `inode_mkdir`, `inode_mknod`, `inode_symlink`, `inode_link`, `inode_rename` |
| `delete` | `inode_unlink`, `inode_rmdir`, `inode_rename` |
| `replace` | `inode_rename` |
| `link` | `inode_link` |
| `metadata` | `inode_setattr`, `inode_setxattr`, `inode_removexattr`, `inode_set_acl`, `inode_remove_acl`, `inode_file_setattr` |
| `mount` | `sb_mount`, `move_mount` |
| `connect` | `socket_connect`, `socket_sendmsg`, `socket_create`, `socket_setsockopt` |
| `send` | `socket_sendmsg`, `file_permission` (splice) |
| `bind`, `listen`, `accept` | `socket_bind`, `socket_listen`, `socket_accept`, `socket_create` |
| `fork`, `thread` | `task_alloc` |
| `umount` | `sb_umount` |
| `signal`, `trace` | `task_kill`, `ptrace_access_check` |
| `trace`, `exec`, `claim` of programs that rules name | `ptrace_access_check`, `bprm_check_security`, `task_prctl` |
| `call` | none: seccomp, or the tracepoint `sys_enter` |
"""


def page():
    table = rows()
    outcomes, tests = shown(table)
    wrong = faults(outcomes)
    if wrong:
        raise SystemExit("bypasses:\n  " + "\n  ".join(wrong))
    with_lsm = [row for row, about in table.items() if about["bpf_lsm"]]
    without = [row for row, about in table.items() if not about["bpf_lsm"]]
    series = ", ".join(with_lsm)
    twins = ", ".join(table[row]["kernel"] for row in without)
    out = [HEAD, HOOKS]
    out.append(
        f'\nThe kernels are Debian\'s {series} ("with `bpf`" in `lsm=`), and {twins} booted without it.\n'
        "Where kernels are in brackets, the others do otherwise or were not asked.\n"
    )
    order = ["tmpfs", "ext4", "xfs", "btrfs", "overlay", "IPv4", "IPv4 through IPv6", "IPv6", "TCP", "UDP", ANYWHERE]
    for name, a_class in classes().items():
        out.append(f"\n## {a_class['title']}\n\n")
        limits = a_class.get("limits", {})
        by = {way: ", ".join(f"`{test}`" for test in stems(tests[f"{name}/{way}"])) for way in a_class["ways"]}
        # The test of most of them is told once.
        most = max(sorted(set(by.values())), key=list(by.values()).count)
        alone = set(by.values()) == {most}
        out.append(f"Shown by {most}{'' if alone else ', where no other test is named'}.\n\n")
        heads = ["what is tried", "asked as", "with `bpf`", "without"] + ([] if alone else ["shown by"])
        out.append(line(heads) + line(["---"] * len(heads)))
        for way, what in a_class["ways"].items():
            found = outcomes[f"{name}/{way}"]
            seen = {place for _, place in found}
            assert seen <= set(order), seen
            places = [place for place in order if place in seen]
            cells = [what, asked(found), cell(found, with_lsm, places), cell(found, without, places)]
            out.append(line(cells + ([] if alone else ["" if by[way] == most else by[way]])))
        if limits:
            out.append("\n")
            before = None
            for way, why in limits.items():
                if why != "As above.":
                    before = why
                out.append(f"- {capital(a_class['ways'][way])}: {before}\n")
    return "".join(out)


def line(cells):
    return f"| {' | '.join(cells)} |\n"


def stems(names):
    """Tests that differ in the file system alone are one."""
    ends = ("_on_tmpfs", "_on_ext4", "_on_xfs", "_on_btrfs", "_on_overlay")
    stems = set()
    for name in names:
        stems.add(next((name.removesuffix(end) for end in ends if name.endswith(end)), name))
    return sorted(stems)


def capital(text):
    return text[:1].upper() + text[1:]


def check():
    old = PAGE.read_text() if PAGE.exists() else ""
    new = page()
    if old == new:
        return
    names = ("docs/BYPASSES.md", "what the tests have shown")
    diff = difflib.unified_diff(old.splitlines(), new.splitlines(), *names, n=0, lineterm="")
    print(*list(diff)[:60], sep="\n", file=sys.stderr)
    raise SystemExit("bypasses: the page is not what the tests have shown: scripts/bypasses.py write makes it so")


def main():
    match sys.argv[1:]:
        case ["collect", row, log, *more]:
            collect(row, log, more == ["--some"])
        case ["write"]:
            PAGE.write_text(page())
        case ["check"]:
            check()
        case _:
            raise SystemExit(__doc__)


main()
