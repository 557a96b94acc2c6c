/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The contract between the kernel half and the Rust half: every record and map value that crosses, and nothing else.
 * src/wire mirrors each struct and the build compares size, alignment and offsets. Enums are append-only; 0 is never a
 * valid kind, so that a zeroed record is never an event by accident.
 */
#ifndef STOCKADE_WIRE_H
#define STOCKADE_WIRE_H

enum stk_kind {
	STK_KIND_NONE = 0,
	STK_KIND_EXEC = 1,
	STK_KIND_FORK = 2,
	STK_KIND_EXIT = 3,
	STK_KIND_OPEN = 4,
	STK_KIND_UNLINK = 5,
	STK_KIND_RENAME = 6,
	STK_KIND_DENIAL = 7,
	/* Not a record: losses of the tree that is followed. */
	STK_KIND_SCOPE = 8,
	STK_KIND_SYSCALL = 9,
	STK_KIND_CONNECT = 10,
	STK_KIND_ACCEPT = 11,
	STK_KIND_CLOSE = 12,
	STK_KIND_BIND = 13,
	STK_KIND_LISTEN = 14,
	STK_KIND_RETRANSMIT = 15,
	STK_KIND_UNIX_CONNECT = 16,
	/* Not a record: connections and counters that found no room. */
	STK_KIND_NET = 17,
	STK_KIND_MEMORY = 18,
	STK_KIND_OOM = 19,
	STK_KIND_DISK = 20,
	/* Not records: samples, stacks and waits that found no room. */
	STK_KIND_PROFILE = 21,
	STK_KIND_STACK = 22,
	STK_KIND_OFF_CPU = 23,
	STK_KIND_CREATE = 24,
	STK_KIND_LINK = 25,
	STK_KIND_SYMLINK = 26,
	STK_KIND_MKDIR = 27,
	STK_KIND_RMDIR = 28,
	STK_KIND_MKNOD = 29,
	STK_KIND_SETATTR = 30,
	STK_KIND_XATTR = 31,
	STK_KIND_MOUNT = 32,
	STK_KIND_DNS = 33,
	STK_KIND_TLS = 34,
	STK_KIND_RAW_SOCKET = 35,
	/* Not a record: counters and paths of files that found no room. */
	STK_KIND_FILE = 36,
	/* Not a record: allocations of the kernel that found no room. */
	STK_KIND_ALLOCATION = 37,
	/* Only where it is named. */
	STK_KIND_TCP_STATE = 38,
	STK_KIND_NET_DENIAL = 39,
	STK_KIND_CALL_DENIAL = 40,
	STK_KIND_LIMIT_DENIAL = 41,
	STK_KIND_GUARD_DENIAL = 42,
	STK_KIND_MAX = 43,
};

/* Why something did not arrive: lost, or left out on purpose. */
enum stk_loss {
	STK_LOSS_RING = 0, /* the ring was full */
	STK_LOSS_SCRATCH = 1, /* the scratch buffer was taken over by a preempting program */
	STK_LOSS_MAP = 2, /* a state map was full */
	STK_LOSS_SAMPLED = 3, /* the process is not in the sample */
	STK_LOSS_THINNED = 4, /* the ring was filling up, and others were chosen to be heard */
	STK_LOSS_LIMITED = 5, /* the process had sent its share */
	STK_LOSS_READ = 6, /* memory of the caller could not be read */
	STK_LOSS_MAX = 7,
};

/* What user space looks at all the time, of one CPU. */
struct stk_cpu_counts {
	__u64 lost[STK_KIND_MAX * STK_LOSS_MAX]; /* the index is kind * STK_LOSS_MAX + cause */
	__u64 made; /* entries in the maps of summaries */
};

enum stk_flag {
	STK_FLAG_ARGS_CUT = 1 << 0, /* argv was longer than STK_ARGS_MAX */
	STK_FLAG_ARGS_UNREAD = 1 << 1, /* a page of argv could not be read */
	STK_FLAG_PATH_CUT = 1 << 2, /* only the leaf-most components are there */
	STK_FLAG_CWD_CUT = 1 << 3,
	STK_FLAG_PATH2_CUT = 1 << 4, /* the new path of a rename, the old path of a link */
	STK_FLAG_DELETED = 1 << 5, /* the name was already gone */
	STK_FLAG_NO_MOUNT =
		1 << 6, /* path starts at the root of the file system, not of the mount tree */
	STK_FLAG_AS_GIVEN = 1 << 7, /* path is the caller's string, read from its memory */
	STK_FLAG_SCRIPT = 1 << 8, /* exec of a script: filename and interp are set */
	STK_FLAG_BEFORE = 1 << 9, /* exec: what the process was allowed before is known */
	STK_FLAG_UNLINKED = 1 << 10, /* exec: the file has no name at all */
	STK_FLAG_MEMFD = 1 << 11, /* exec: it never had one, being made by memfd_create(2) */
	/* exec: not all of the environment was looked at, or a value is cut */
	STK_FLAG_ENV_CUT = 1 << 12,
	STK_FLAG_NOT_WANTED = 1 << 13, /* of a counted file: nobody asked for its path */
	STK_FLAG_UNLISTED = 1 << 14, /* denial: the rule allows other files */
};

/* Bits of a rule; the same values stand in policy::Access. */
enum stk_access {
	STK_ACCESS_READ = 1 << 0,
	STK_ACCESS_WRITE = 1 << 1,
	STK_ACCESS_EXEC = 1 << 2,
	STK_ACCESS_CREATE = 1 << 3,
	STK_ACCESS_DELETE = 1 << 4,
	STK_ACCESS_REPLACE = 1 << 5,
	STK_ACCESS_LINK = 1 << 6,
	STK_ACCESS_METADATA = 1 << 7,
	STK_ACCESS_MOUNT = 1 << 8,
	/* On the network; the same numbers, so that a set of rules and a denial need not say which they are about. */
	STK_ACCESS_CONNECT = 1 << 9, /* to be in touch with an address: connect, or send there */
	STK_ACCESS_SEND = 1 << 10, /* whatever is sent there */
	STK_ACCESS_BIND = 1 << 11, /* an address of our own */
	STK_ACCESS_LISTEN = 1 << 12,
	STK_ACCESS_ACCEPT = 1 << 13,
};

enum stk_verdict {
	STK_VERDICT_ALLOW = 0,
	STK_VERDICT_AUDIT = 1,
	STK_VERDICT_DENY = 2,
	STK_VERDICT_KILL = 3, /* denied, and the process has been sent SIGKILL */
};

enum stk_limits {
	STK_COMM_LEN = 16,
	STK_NAME_MAX = 256, /* NAME_MAX + NUL */
	STK_HASHED_PIECE = 32, /* bytes of a name that are hashed at a time */
	STK_PATH_MAX = 4096,
	STK_PATH_BUF =
		4352, /* STK_PATH_MAX + one component, so that an append needs no second check */
	STK_PATH_DEPTH = 256, /* components and mounts walked; deeper sets a _CUT flag */
	STK_ARGS_MAX = 32768,
	STK_ENV_KEY = 64, /* name of a variable + NUL */
	STK_ENV_VALUE = 4096, /* a variable with its name and its NUL */
	STK_ENV_MAX = 8192, /* all that are reported of one exec */
	STK_DATA_MAX =
		57344, /* three paths, an interpreter, argv and variables: 3 * 4352 + 256 + 32768 + 8192, rounded up */
	STK_ACCESS_KINDS = 14,
	STK_ACCESS_FILE_KINDS = 9, /* the first of them */
	STK_UNIX_PATH = 108, /* sun_path of struct sockaddr_un */
	STK_PAYLOAD_MAX = 4096, /* of one call; the largest answer that EDNS(0) is used for */
	STK_SLOTS =
		24, /* of a histogram: by bits of the microseconds; the last one has no upper bound */
};

enum stk_scope {
	STK_SCOPE_HOST = 1 << 0,
	STK_SCOPE_TASKS = 1 << 1,
	STK_SCOPE_CGROUPS = 1 << 2,
	STK_SCOPE_UIDS = 1 << 3, /* narrows the above */
	STK_SCOPE_COMMS = 1 << 4, /* narrows the above */
};

enum stk_filter {
	STK_FILTER_ERRORS = 1 << 0, /* only operations that failed */
};

enum stk_task_flag {
	STK_TASK_FOLLOW = 1 << 0, /* children belong too */
	STK_TASK_ENDED = 1 << 1, /* its last thread has ended; its parent may not have asked yet */
};

/* Which table of numbers a system call comes from. */
enum stk_abi {
	STK_ABI_NATIVE = 0,
	STK_ABI_COMPAT = 1, /* 32-bit */
};

/*
 * Numbers of rules, the stronger one first; and what comes from us. In a set a number is doubled, and 1 is added where the
 * rule allows: a code, which leaves the uppermost bit free.
 */
enum stk_rule {
	STK_RULE_GUARD = 0x3ffffffe, /* in no policy: of what the fence keeps to itself */
	STK_RULE_CANARY = 0x3fffffff,
	STK_RULE_NONE = 0x7fffffff, /* in a set, and as much as allowed */
};

enum stk_ruling_flag {
	STK_RULING_CANARY = 1 << 0, /* holds for the monitor itself and for nobody else */
	/* A bit for each length, modulo 16, that a name in the directory with rules has; this is the first of them. */
	STK_RULING_LENGTHS = 16,
};

/*
 * All tables of the fence have two halves: of the policy that is in force, and of the one that comes next. This bit is of the
 * second one's keys, where s_dev has none (majors are below 512: BLKDEV_MAJOR_MAX in include/linux/blkdev.h,
 * CHRDEV_MAJOR_MAX in include/linux/fs.h), and of what functions hand on of what is asked.
 */
enum stk_half {
	STK_SECOND = 1 << 30,
};

enum stk_armed_flag {
	STK_ARMED_NAMES = 1 << 0, /* there are rules for names */
	STK_ARMED_BELOW = 1 << 1, /* and for all that is in a directory */
	STK_ARMED_OTHERWISE = 1 << 2, /* and about all that no rule names */
	STK_ARMED_KINDS = 1 << 3, /* and about kinds of files that are run */
	STK_ARMED_TRACED = 1 << 4, /* nothing refuses system calls: they are told when they begin */
	STK_ARMED_SUBJECTS = 1 << 5, /* what is said is not the same to everybody */
	STK_ARMED_APART = 1 << 6, /* programs are told apart by rules that are enforced */
};

/* Starts every record. */
struct stk_hdr {
	__u64 time_ns; /* CLOCK_BOOTTIME */
	__u64 start_ns; /* of the process, CLOCK_BOOTTIME; with tgid it survives pid reuse */
	__u64 parent_start_ns;
	__u64 cgroup_id; /* cgroup v2, st_ino of its directory */
	__u32 kind;
	__u32 flags;
	__u32 tgid;
	__u32 tid;
	__u32 ppid;
	__u32 uid;
	__u32 gid;
	__u32 len; /* of the whole record in bytes */
	__u8 comm[STK_COMM_LEN];
};

/* A file in the kernel's own terms. */
struct stk_file_id {
	__u64 ino;
	__u32 dev; /* s_dev: major << 20 | minor */
	__u32 generation; /* i_generation; 0 is a value */
	__u32 fs_magic;
	__u32 mode;
};

/* What a process may do beyond its user's rights. */
struct stk_privileges {
	__u64 caps; /* the effective set */
	__u32 euid;
	__u32 egid;
};

/* In the order of their names in /proc/PID/ns. */
enum stk_namespace {
	STK_NS_CGROUP = 0,
	STK_NS_IPC = 1,
	STK_NS_MNT = 2,
	STK_NS_NET = 3,
	STK_NS_PID = 4,
	STK_NS_TIME = 5,
	STK_NS_USER = 6,
	STK_NS_UTS = 7,
	STK_NS_MAX = 8,
};

/* Inode numbers, as in /proc/PID/ns; 0: not known. */
struct stk_namespaces {
	__u32 inum[STK_NS_MAX];
};

/* Name of an environment variable that somebody asked for; all behind it is 0. */
struct stk_env_key {
	__u8 text[STK_ENV_KEY];
};

enum stk_env {
	STK_ENV_NAMES = 1, /* which of the chosen variables there are */
	STK_ENV_VALUES = 2, /* and what they are */
};

enum stk_exec_limits {
	STK_NO_LOGIN = 0xffffffff, /* nobody has logged in, or the kernel does not keep it */
	STK_TTY_LEN = 16,
};

/* Followed by data: executable path, cwd (leaf first, NUL after each component), filename, interp (NUL-terminated,
 * only for scripts), argv (NUL after each), of the variables that were asked for those that are there (NUL after each):
 * the name, and with STK_ENV_VALUES `=` and the value. */
struct stk_exec {
	struct stk_hdr hdr;
	struct stk_file_id exe;
	__u32 exe_len;
	__u32 cwd_len;
	__u32 filename_len;
	__u32 interp_len;
	__u32 args_len;
	__u32 args_total; /* what argv measured before it was cut */
	__u32 env_len;
	__u32 pad;
	struct stk_privileges now;
	struct stk_privileges before; /* with STK_FLAG_BEFORE */
	__u32 login_uid; /* or STK_NO_LOGIN */
	__u32 tty; /* controlling terminal: major << 20 | minor; 0: there is none */
	__u8 tty_name[STK_TTY_LEN];
	struct stk_namespaces namespaces;
};

struct stk_fork {
	struct stk_hdr hdr; /* of the process that forked */
	__u64 child_start_ns;
	__u64 child_parent_start_ns;
	__u32 child_tgid;
	__u32 child_ppid; /* differs from hdr.tgid under CLONE_PARENT */
	struct stk_namespaces namespaces; /* of the child */
};

struct stk_exit {
	struct stk_hdr hdr;
	__u64 utime_ns; /* as sampled; see rtime_ns */
	__u64 stime_ns;
	__u64 rtime_ns; /* exact run time, to which wait4(2) scales the two above */
	__u64 maxrss_pages;
	__u32 code; /* wait status: code << 8 | signal */
	__u32 pad;
};

/*
 * Open, create and unlink. Followed by the path, leaf first, NUL after each component; or, with STK_FLAG_AS_GIVEN, by
 * one string and, when it is relative, the directory it starts from.
 */
struct stk_file {
	struct stk_hdr hdr;
	struct stk_file_id file;
	__s32 result; /* 0, or -errno; opens by fentry do not know the descriptor */
	__u32 open_flags;
	__u32 path_len;
	__u32 base_len;
};

/* Followed by the old path and the new path; with STK_FLAG_AS_GIVEN each is one string. */
struct stk_rename {
	struct stk_hdr hdr;
	struct stk_file_id file;
	struct stk_file_id replaced; /* ino 0: nothing was there */
	__s32 result;
	__u32 rename_flags;
	__u32 old_len;
	__u32 new_len;
};

enum stk_change_op {
	STK_CHANGE_LINK = 1,
	STK_CHANGE_SYMLINK = 2,
	STK_CHANGE_MKDIR = 3,
	STK_CHANGE_RMDIR = 4,
	STK_CHANGE_MKNOD = 5,
	STK_CHANGE_CHMOD = 6,
	STK_CHANGE_CHOWN = 7,
	STK_CHANGE_UTIMES = 8,
	STK_CHANGE_TRUNCATE = 9,
	STK_CHANGE_SETXATTR = 10,
	STK_CHANGE_REMOVEXATTR = 11,
	STK_CHANGE_MOUNT = 12,
	STK_CHANGE_UMOUNT = 13,
};

/* What of a change is there. */
enum stk_change_set {
	STK_SET_MODE = 1 << 0,
	STK_SET_UID = 1 << 1,
	STK_SET_GID = 1 << 2,
	STK_SET_SIZE = 1 << 3,
	STK_SET_ATIME = 1 << 4,
	STK_SET_MTIME = 1 << 5,
	STK_SET_DEV = 1 << 6,
	STK_SET_FLAGS = 1 << 7,
};

/*
 * Everything else that changes names, attributes and mounts. Followed by the path as above, the directory that it starts
 * from, `other` and `type`: of a link the old path (leaf first, NUL after each component; with STK_FLAG_AS_GIVEN one
 * string), of a symlink its target, of an attribute its name, of a mount its source and the type of its file system.
 */
struct stk_change {
	struct stk_hdr hdr;
	struct stk_file_id file;
	__u64 size;
	__s64 atime_ns; /* since 1970 */
	__s64 mtime_ns;
	__s32 result;
	__u32 op; /* stk_change_op */
	__u32 set; /* stk_change_set bits */
	__u32 mode;
	__u32 uid;
	__u32 gid;
	__u32 dev; /* major << 20 | minor */
	__u32 flags; /* of mount(2), of umount2(2) */
	__u32 path_len;
	__u32 base_len;
	__u32 other_len;
	__u32 type_len;
};

struct stk_denial {
	struct stk_hdr hdr;
	struct stk_file_id file;
	__u32 rule;
	__u32 access; /* one or more of stk_access: what was asked */
	__u16 verdict;
	__u16 error; /* errno that was answered; 0 for an audit */
	__u32 path_len;
	__u8 path[STK_PATH_BUF];
};

/* What the kernel counts of a thread; sums over the threads of a process. */
struct stk_cpu_times {
	__u64 utime_ns; /* as sampled; see rtime_ns */
	__u64 stime_ns;
	__u64 rtime_ns; /* exact run time, to which wait4(2) scales the two above */
	__u64 run_delay_ns; /* ready to run, and another task did */
	__u64 voluntary; /* switches to another task */
	__u64 involuntary;
};

enum stk_cpu_flag {
	STK_CPU_WANTED = 1 << 0, /* the thread is in scope */
	STK_CPU_ENDED = 1 << 1, /* it is a zombie */
	STK_CPU_DELAYS = 1 << 2, /* the kernel counts run_delay_ns */
};

/* What iter/task says of a thread. */
struct stk_cpu_thread {
	struct stk_hdr hdr; /* flags: stk_cpu_flag */
	struct stk_cpu_times times;
};

/* Key of stk_tasks. The start time makes a reused pid another key, so no removal can hit the wrong process. */
struct stk_task_key {
	__u64 start_ns;
	__u64 tgid;
};

/* The threads of a process that have ended; its key is a stk_task_key. */
struct stk_cpu_process {
	struct stk_hdr hdr; /* with `ended` */
	__u64 freed; /* threads whose times are in; before `times`, so that it is read first */
	__u64 ending; /* threads that have ended */
	struct stk_cpu_times times;
	__u32 code; /* with `ended`: wait status */
	__u32 wanted; /* 1: a thread of it was in scope when it ended */
	__u32 ended; /* 1: all threads have ended */
	__u32 pad;
};

/* A thread that has ended and is not freed. */
struct stk_cpu_ending {
	struct stk_task_key task;
	struct stk_cpu_times times; /* at its end; with `freed`, all of them */
	__u32 tid;
	__u32 early; /* 1: it ended while user space looked for the first time, which takes it out */
	__u32 freed;
	__u32 pad;
};

/* A system call that somebody chose, when it has returned. */
struct stk_syscall {
	struct stk_hdr hdr;
	__u64 args[6];
	__s64 result; /* or -errno */
	__u64 duration_ns;
	__u32 nr;
	__u32 abi; /* stk_abi */
};

/* Keys of summaries begin with the process. Its stk_hdr, as it was when it was first counted, is in stk_who. */
struct stk_syscall_key {
	struct stk_task_key task;
	__u32 nr;
	__u32 abi; /* stk_abi */
};

/* Values of summaries are counters that only grow. */
struct stk_syscall_sum {
	__u64 calls; /* that have returned, and exits */
	__u64 errors;
	__u64 time_ns;
};

/* Both ends; IPv4 as ::ffff:a.b.c.d, ports in the order of the machine. */
struct stk_flow {
	__u8 local[16];
	__u8 remote[16];
	__u16 local_port;
	__u16 remote_port;
	__u16 family; /* of the socket: one of AF_INET6 can speak IPv4 */
	__u16 protocol;
};

/* Everything of TCP, and bind of UDP. */
struct stk_net {
	struct stk_hdr
		hdr; /* of the owner of the connection, as it was when it made or accepted it */
	struct stk_flow flow;
	__u64 duration_ns; /* of the attempt, or of the connection; 0 where nothing was tried */
	__u64 sent_bytes;
	__u64 received_bytes;
	__u32 retransmits;
	__s32 result;
	__u32 incoming; /* 1: the other end connected */
	__u32 value; /* backlog of listen */
};

/* A connection went from one state to another. */
struct stk_tcp_state {
	struct stk_hdr hdr; /* of its owner, as in stk_net */
	struct stk_flow flow;
	__u64 duration_ns; /* in the state before; 0 where that was not seen to begin */
	__u32 incoming;
	__u8 before; /* include/net/tcp_states.h, as `after` */
	__u8 after;
	__u8 pad[2];
};

struct stk_unix {
	struct stk_hdr hdr;
	__s32 result;
	__u32 kind; /* the socket's type: SOCK_STREAM, SOCK_DGRAM */
	__u32 path_len; /* begins with NUL: abstract */
	__u32 pad;
	__u8 path[112]; /* STK_UNIX_PATH, rounded up */
};

/* Bytes that a call moved through a socket: a DNS message or a part of one, or of a TLS greeting. Followed by `len` of them. */
struct stk_payload {
	struct stk_hdr hdr;
	struct stk_flow flow;
	__u32 moved; /* by the call: more than len, where it was cut */
	__u32 len;
	__u32 sent; /* 0: received */
	__u32 incoming; /* 1: the other end asks */
};

/* Somebody asked for a socket beside the transports. */
struct stk_raw_socket {
	struct stk_hdr hdr;
	__s32 result; /* 0, or -errno */
	__u32 family; /* AF_INET, AF_INET6, AF_PACKET */
	__u32 kind; /* SOCK_RAW, SOCK_DGRAM, SOCK_PACKET */
	__u32 protocol; /* of AF_PACKET an EtherType, both in the order of the machine */
};

/* The fence refused something on the network, or would have. */
struct stk_net_denial {
	struct stk_hdr hdr;
	__u32 rule;
	__u32 access; /* one or more of stk_access: what was asked */
	__u16 verdict;
	__u16 error; /* errno that was answered; 0 for an audit */
	__u16 family; /* of the socket */
	__u16 protocol;
	__u8 address[16]; /* as in stk_flow */
	__u16 port;
	__u8 own; /* an address of this end */
	__u8 blind; /* there is no address: nobody can tell whom the socket reaches */
	__u32 host; /* of those that rules are about, one that has the address: its number and 1; 0: none */
};

/* Where a table has what is said about a system call, for each of the two ABIs. */
enum stk_call_slot {
	STK_CALL_NUMBERS = 960, /* by number below; here all others */
	STK_CALL_SOCKET = 961, /* what socketcall(2) is asked for */
	STK_CALL_IPC = 985, /* ipc(2) */
	STK_CALL_CANARY = 1022, /* no call */
	STK_CALL_SLOTS = 1024,
	STK_SOCKETCALLS = 21,
	STK_IPC_CALLS = 25,
};

/* A system call was refused, or would have been. */
struct stk_call_denial {
	struct stk_hdr hdr;
	__u64 args[6];
	__u32 rule;
	__u32 nr;
	__u16 verdict;
	__u16 error; /* errno that was answered; 0 for an audit */
	__u16 abi; /* stk_abi */
	__u16 traced; /* nothing refused it */
};

/* What limits count. */
enum stk_counted {
	STK_COUNTED_FORKS = 0,
	STK_COUNTED_THREADS = 1,
	STK_COUNTED_CONNECTIONS = 2,
	STK_COUNTED_BYTES = 3,
	STK_COUNTED_KINDS =
		4, /* with masks in stk_armed; what follows has them in stk_limited_calls */
	STK_COUNTED_CALLS = 4,
};

/* Of a policy: the first half of them is for all who are held together, the other one for each process. */
enum stk_limit_count {
	STK_LIMITS = 16,
	STK_LIMITS_EACH = 8,
};

/* More was done than a limit lets through, or would have been. */
struct stk_limit_denial {
	struct stk_hdr hdr;
	__u64 amount; /* bytes; 1 of all else; all bits: nobody can tell */
	__u32 rule;
	__u32 nr; /* of a system call */
	__u16 verdict;
	__u16 error; /* errno that was answered; 0 for an audit */
	__u16 counted; /* stk_counted */
	__u16 abi; /* stk_abi, of a system call */
};

/* What the fence keeps to itself. */
enum stk_guard {
	STK_GUARD_MAP = 0, /* writing a map */
	STK_GUARD_PIN = 1, /* taking the name of something away that is pinned */
	STK_GUARD_MOUNT = 2, /* unmounting where that is */
	STK_GUARD_MONITOR_SIGNAL = 3,
	STK_GUARD_MONITOR_TRACE = 4, /* the monitor's memory and descriptors */
	/* A program that rules tell from one's own: its memory and descriptors, becoming it while debugged, passing for it. */
	STK_GUARD_PROGRAM_TRACE = 5,
	STK_GUARD_PROGRAM_EXEC = 6,
	STK_GUARD_PROGRAM_CLAIM = 7,
	STK_GUARD_KINDS = 8,
};

enum stk_guarded_map {
	STK_GUARDED_MAPS = 64,
	/* Values of stk_guarded. */
	STK_GUARDED_HELD = 1, /* from who is held */
	STK_GUARDED_CANARY = 2, /* from ourselves as well */
};

/* Somebody who is held has reached for it. */
struct stk_guard_denial {
	struct stk_hdr hdr;
	__u32 rule;
	__u16 verdict;
	__u16 error;
	__u32 at; /* stk_guard */
	__u32 pad;
};

/* How much of something may be done; value of stk_limit_table. Amounts are in parts of which `part` make one. */
struct stk_limit {
	__u64 part; /* nanoseconds in which `rate` of what is counted come back */
	__u64 rate;
	__u64 burst; /* how many can be done at once */
	__u64 full; /* the same in parts */
	__u64 filled_ns; /* after so long everything has come back */
	__u32 epoch; /* of the policy */
	__u32 rule; /* a code, as in a set */
	__u32 enforced;
	__u32 pad;
};

struct stk_net_key {
	struct stk_task_key task;
	__u8 remote[16];
	__u16 port; /* the one that was connected to, or sent to */
	__u16 family;
	__u16 protocol;
	__u16 incoming;
};

struct stk_net_sum {
	__u64 sent_bytes;
	__u64 received_bytes;
	__u64 sent_packets;
	__u64 received_packets;
	__u64 connections;
	__u64 failures;
	__u64 retransmits;
};

enum stk_memory_call {
	STK_MEMORY_MMAP = 1,
	STK_MEMORY_MUNMAP = 2,
	STK_MEMORY_BRK = 3, /* grows the heap, or asks where it ends */
	STK_MEMORY_BRK_SHRINK = 4,
};

/* A change of the address space that somebody asked for, when the call has returned. */
struct stk_memory {
	struct stk_hdr hdr;
	__u64 address;
	__u64 bytes; /* whole pages */
	__u32 call; /* stk_memory_call */
	__u32 errnum;
	__u32 prot;
	__u32 flags;
};

struct stk_memory_key {
	struct stk_task_key task;
	__u32 call; /* stk_memory_call */
	__u32 errnum; /* 0: those that worked */
};

struct stk_memory_sum {
	__u64 calls;
	__u64 bytes;
};

enum stk_memory_flag {
	STK_MEMORY_SIZES = 1 << 0, /* the sizes are there */
	STK_MEMORY_WANTED = 1 << 1, /* the thread is in scope */
	STK_MEMORY_FINAL = 1 << 2, /* nothing will change any more */
};

/* What the kernel itself counts: of a thread that runs (iter/task), or of a process that ends. */
struct stk_memory_state {
	struct stk_hdr hdr; /* flags: stk_memory_flag */
	__u64 minor; /* faults of this thread, or of all */
	__u64 major;
	__u64 ended_minor; /* faults of the threads that have ended */
	__u64 ended_major;
	__u64 file; /* resident pages */
	__u64 anon;
	__u64 shmem;
	__u64 swap;
	__u64 total_vm; /* pages */
	__u64 peak_vm;
	__u64 peak_rss; /* as last noted: the present size can be larger */
	__u64 heap_bytes;
};

/* How the programs are to report; nothing before it is filled in. */
struct stk_memory_form {
	__u32 page_bytes;
	__u32 events;
};

enum stk_allocation_source {
	STK_ALLOCATION_PAGE =
		1, /* of the page allocator, which the slab allocator takes its own from */
	STK_ALLOCATION_SLAB = 2, /* kmalloc, and caches of objects of one size */
};

enum stk_allocation_limits {
	STK_SITE_DEPTH = 64,
};

/* How programs are to count; nothing before it is filled in. Addresses are 0 where they are not known. */
struct stk_allocation_form {
	__u64 page_bytes;
	__u64 per_cpu_offset; /* of the array: where each CPU's variables are */
	__u64 preempt_count; /* of the variable, or of the struct that begins with or holds it */
};

/* Return addresses, leaf first. Its key is a hash of them. */
struct stk_site_stack {
	__u64 depth;
	__u64 frames[STK_SITE_DEPTH];
};

struct stk_allocation_key {
	struct stk_task_key task;
	__u64 source; /* stk_allocation_source */
};

/* Where a process allocates. */
struct stk_site_key {
	struct stk_allocation_key of;
	__u64 stack; /* key of a stk_site_stack; 0: it could not be taken */
};

/* What was allocated, and what of it was given back. */
struct stk_allocation_sum {
	__u64 allocations;
	__u64 requested;
	__u64 bytes;
	__u64 frees;
	__u64 freed_requested;
	__u64 freed_bytes;
};

/* What is at an address, and whose it is. */
struct stk_allocation {
	struct stk_site_key site;
	__u64 requested;
	__u64 bytes;
};

/* The kernel has chosen a process to kill, because memory is short. */
struct stk_oom {
	struct stk_hdr hdr; /* of the victim */
	__u64 trigger_start_ns; /* who asked for the memory */
	__u64 file; /* resident pages */
	__u64 anon;
	__u64 shmem;
	__u64 swap;
	__u64 total_vm;
	__u64 table_bytes;
	__u32 trigger_tgid;
	__s32 score_adj;
	__u8 trigger_comm[STK_COMM_LEN];
};

enum stk_disk_op {
	STK_DISK_READ = 0,
	STK_DISK_WRITE = 1,
	STK_DISK_FLUSH = 2,
	STK_DISK_DISCARD = 3,
	STK_DISK_SECURE_ERASE = 4,
	STK_DISK_WRITE_ZEROES = 5,
	STK_DISK_OTHER = 6, /* of zoned devices, and WRITE SAME */
};

enum stk_disk_flag {
	STK_DISK_FLAG_SYNC = 1 << 0,
	STK_DISK_FLAG_META = 1 << 1,
	STK_DISK_FLAG_FUA = 1 << 2,
	STK_DISK_FLAG_PREFLUSH = 1 << 3,
	STK_DISK_FLAG_READAHEAD = 1 << 4,
};

enum stk_disk_limits {
	STK_DISK_NAME_LEN = 32, /* DISK_NAME_LEN */
};

/* A whole disk, not its partition. */
struct stk_disk_device {
	__u8 name[STK_DISK_NAME_LEN];
	__u32 major;
	__u32 minor;
};

/* A request to a block device has completed. */
struct stk_disk {
	struct stk_hdr hdr; /* of whoever made the request; the time is that of completion */
	struct stk_disk_device device;
	__u64 sector; /* of 512 bytes, on the whole disk */
	__u64 bytes;
	__u64 queue_ns; /* until it was issued for the last time, or completed when it never was */
	__u64 device_ns;
	__u32 op; /* stk_disk_op */
	__u32 flags; /* stk_disk_flag */
	__s32 error; /* a blk_status_t, or a negative errno */
	__u32 issued; /* whether it reached the driver */
};

struct stk_disk_key {
	struct stk_task_key task;
	struct stk_disk_device device;
	__u32 op; /* stk_disk_op */
	__u32 pad;
};

struct stk_disk_sum {
	__u64 ios;
	__u64 bytes;
	__u64 errors;
	__u64 queue_ns;
	__u64 device_ns;
	__u64 queue[STK_SLOTS];
	__u64 device[STK_SLOTS]; /* of those that reached the driver */
};

enum stk_file_limits {
	STK_FILE_PATH_MAX = 1024, /* of a counted file; of a longer path the last components */
};

/* A file, whoever uses it. What is counted of it belongs to an epoch: user space takes those that are over. */
struct stk_file_path_key {
	__u64 ino; /* with device and generation 0: what could not be opened */
	__u32 dev;
	__u32 generation;
	__u32 epoch;
	__u32 pad;
};

struct stk_file_key {
	struct stk_task_key task;
	struct stk_file_path_key file;
};

/* One direction: reads or writes that have ended. */
struct stk_file_way {
	__u64 count;
	__u64 bytes;
	__u64 time_ns;
	__u64 slots[STK_SLOTS];
};

struct stk_file_sum {
	__u64 opens;
	__u64 failures; /* of opens, reads and writes */
	struct stk_file_way read;
	struct stk_file_way written;
	__u32 fs_magic; /* as in stk_file_id */
	__u32 mode;
};

/* How it is called: components, leaf first, NUL after each. */
struct stk_file_path {
	__u32 len;
	__u32 flags; /* stk_flag */
	__u8 path[STK_FILE_PATH_MAX];
};

enum stk_profile_limits {
	STK_STACK_DEPTH = 127, /* what the kernel unwinds: kernel.perf_event_max_stack */
};

/* Return addresses, leaf first. Its key is a hash of them. */
struct stk_stack {
	__u64 depth;
	__u64 frames[STK_STACK_DEPTH];
};

struct stk_profile_key {
	struct stk_task_key task;
	__u64 user; /* key of a stk_stack; 0: there is none */
	__u64 kernel;
	__u8 comm
		[STK_COMM_LEN]; /* the thread's name: it changes with an exec, in the middle of an epoch */
	__u32 epoch; /* in which it was counted: user space takes those that are over */
	__u32 preempted; /* 1: it could have run, and another task did */
};

struct stk_profile_sum {
	__u64 count;
	__u64 time_ns; /* of waits */
};

/* What iter/task_file says of one of our own descriptors. */
struct stk_identity {
	struct stk_file_id file;
	__u64 start_ns; /* of the reader */
	__u32 fd;
	__u32 tgid; /* of the reader, in the initial pid namespace */
	__u8 name[STK_NAME_MAX]; /* in its directory, with a NUL */
};

/* And of the directories that the file is in, one after the other. */
struct stk_above {
	struct stk_file_id file;
	__u32 fd;
	/* 1: the one it is in; 2: the one that this is in, across mounts; 0: there are no more */
	__u32 depth;
};

/* What iter/task says of one process. */
struct stk_seed {
	__u64 start_ns;
	__u64 parent_start_ns;
	__u32 tgid;
	__u32 ppid;
	__u32 ns_tgid; /* in the reader's pid namespace; 0 when it is not visible there */
	__u32 uid;
	__u8 comm[STK_COMM_LEN];
};

struct stk_task {
	__u32 flags;
	__u32 pad;
};

/* How much a process has sent. */
struct stk_rate {
	struct stk_hdr hdr; /* the process, as it was at its first record */
	__u64 second; /* since boot; what `sent` counts */
	__u64 sent;
	__u64 suppressed; /* in all seconds */
};

/* Key of stk_keys: no padding, it is compared as bytes. */
struct stk_key {
	__u64 ino;
	__u32 dev; /* with the half */
	__u32 generation;
};

/* About stk_written, the files that who is held may have written. */
struct stk_written_about {
	__u64 since_s; /* no later than the first of them; by the clock that files have their times from */
	__u64 lost; /* so many had no room */
	struct stk_key canary; /* the monitor's own, which it must not write to; all zeros: none */
};

/* Key of stk_names: a name in a directory. */
struct stk_name {
	struct stk_key dir;
	__u64 hash; /* of the name, piece by piece, with the key in stk_armed */
};

/* What is ruled at a place; value of stk_keys, of stk_names and of the inode tag. Entries of stk_sets; 0: nothing. */
struct stk_ruling {
	__u32 epoch; /* a tag stays with its inode, and may be of a policy before the last one */
	__u32 flags; /* stk_ruling_flag */
	__u32 own; /* for the file, or whatever has the name */
	__u32 below; /* for all that is in the directory, however deep */
};

/* Key of stk_nets: addresses that agree in the first bits, IPv4 as in stk_flow. */
struct stk_net_prefix {
	__u32 bits; /* of what follows */
	__u32 half;
	__u8 address[16];
};

/* Its value: entries of stk_net_ports. What is said of a wider prefix is said there once more: only one is found. */
struct stk_net_ruling {
	__u32 epoch;
	__u32 first;
	__u32 count; /* not 0 */
};

/* Entries of stk_sets for a range of ports, which the next entry ends; the first of a prefix is from port 0 on. */
struct stk_net_ports {
	__u32 from;
	__u32 tcp;
	__u32 udp;
	__u32 other;
};

enum stk_host_limits {
	STK_HOSTS_MAX = 128, /* that the policies of a fence name, one after the other */
	STK_HOST_NAME = 256,
	STK_NAMESERVERS_MAX = 8,
};

/* How long answers hold, in seconds: at least and at most, whatever they say, and for so long after it. */
enum stk_answer_time {
	STK_ANSWER_LEAST_S = 60,
	STK_ANSWER_GRACE_S = 300, /* programs keep addresses for longer than they may */
	STK_ANSWER_MOST_S = 86400,
};

/* The name of a host as it stands in a message of the DNS, in small letters, with zeros behind it. */
struct stk_host_labels {
	__u8 labels[STK_HOST_NAME];
};

/* By address, as in stk_flow: until which second since boot each host has it, by number; 0: it never had. */
struct stk_host_until {
	__u32 until[STK_HOSTS_MAX];
};

/* What user space has found out: until when a host has an address. */
struct stk_host_told {
	__u8 ip[16];
	__u32 host;
	__u32 until;
};

/* One entry: whose answers are believed. */
struct stk_host_about {
	__u32 netns; /* of who gets them */
	__u32 nameservers;
	__u64 lost; /* addresses that had no room */
	__u8 nameserver[STK_NAMESERVERS_MAX][16];
};

/*
 * The strongest rule about each kind of access. Of each set there are as many, one behind the other, as there are classes of
 * subjects that rules tell apart.
 */
struct stk_set {
	__u32 enforced[STK_ACCESS_KINDS]; /* of those that are enforced */
	__u32 all[STK_ACCESS_KINDS]; /* and of those that are only reported */
};

/* Who has this effective user id, in the half of the tables that is meant: 0 or STK_SECOND. */
struct stk_user {
	__u32 uid;
	__u32 half;
};

/* How a rule refuses; value of stk_actions, by the rule's number. */
struct stk_action {
	__u32 error; /* errno; 0: EPERM */
	__u32 kill;
	__u64 hits; /* how often it has refused, or would have */
};

/* A policy, but for what is in tables. */
struct stk_armed {
	__u32 epoch; /* of the policies of a fence, which one this is */
	__u32 flags; /* stk_armed_flag */
	__u64 hash_key[2]; /* for names: nobody outside can tell which ones meet */
	/*
	 * Entries of stk_sets, 0: nothing. For files and addresses that no rule names; for files of which nobody can tell where
	 * they are, and sockets of which nobody can tell whom they reach.
	 */
	__u32 otherwise;
	__u32 lost;
	__u32 kinds; /* one bit for each kind of access that a rule is about */
	__u32 canary_port; /* of UDP on 127.0.0.1, where the monitor must not reach; 0: none */
	/* The same for files that have no link, and for those that run with their owner's rights. */
	__u32 fileless;
	__u32 setuid;
	__u32 written; /* the same for files that who is held may have written */
	__u32 half; /* where it is: 0 or STK_SECOND */
	__u32 limits[STK_COUNTED_KINDS]; /* which of its limits count that, one bit for each */
	__u32 limit_port; /* as canary_port, for limits */
	__u32 hosts; /* how many have numbers; 0 where no rule is about one */
};

/* One entry. A decision reads once which half is in force and stays with it. */
struct stk_in_force {
	__u32 which; /* 0: nothing; 1: the first half, 2: the second. Changed by itself, in one byte */
	__u32 pad;
	struct stk_armed half[2];
};

/* Written before load, constant afterwards: branches that are off cost nothing. */
enum stk_wanted_limits {
	STK_RANGES_MAX = 8, /* of addresses; as many of ports */
	STK_PREFIXES_MAX = 8,
	STK_PREFIX_MAX = 256,
};

/* Addresses that agree with this one in the bits of the mask. IPv4 as in stk_flow, bytes as they go over the wire. */
struct stk_range {
	__u64 address[2];
	__u64 mask[2];
};

struct stk_ports {
	__u16 first;
	__u16 last;
};

/* Value of the map stk_prefixes: a path that is wanted with all below it. Components, leaf first, NUL after each. */
struct stk_prefix {
	__u32 len;
	__u32 pad;
	__u8 text[STK_PREFIX_MAX]; /* behind `len` 0 */
};

struct stk_config {
	__u64 self_start_ns; /* of the process below; its id alone is given out again when it has ended */
	__u32 self_tgid; /* never watched */
	__u32 scope; /* stk_scope bits */
	__u32 cgroups; /* entries of stk_cgroups in use */
	__u32 cpus; /* entries of stk_scratch */
	__u32 ring_bytes; /* size of stk_events */
	__u32 filter; /* stk_filter bits */
	__u64 min_latency_ns; /* events of shorter operations are not wanted */
	__u64 min_bytes; /* events of smaller operations are not wanted */
	__u32 sample; /* of so many processes one is heard; 0 and 1: all */
	__u32 thin; /* whether processes are left out when the ring fills up */
	__u32 process_limit; /* records that a process may send in a second; 0: no limit */
	__u32 env; /* stk_env; 0: nobody asked */
	__u64 kinds; /* records that are wanted, a bit for each stk_kind; 0: all */
	__u32 ranges; /* entries of `range` in use; 0: all addresses are wanted */
	__u32 ports; /* entries of `port` in use; 0: all ports are wanted */
	__u32 prefixes; /* entries of stk_prefixes in use; 0: all paths are wanted */
	__u32 pad;
	struct stk_range range[STK_RANGES_MAX];
	struct stk_ports port[STK_RANGES_MAX];
};

#endif
