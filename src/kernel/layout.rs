//! Refuses to build when a mirror in `wire` and its C type in the compiled object have drifted apart.

use std::mem::offset_of;

use super::skel::{
    allocation, disk, fence, fence_guard, fence_host, fence_limit, fence_network, fence_syscall,
    fence_written, file, file_summary, identity, memory, network, process, process_summary,
    profile, scope, syscall,
};
use crate::wire;

macro_rules! same_layout {
    ($mirror:ty = $c:ty { $($field:ident),+ $(,)? }) => {
        const _: () = {
            assert!(size_of::<$mirror>() == size_of::<$c>(), "size differs from the C type");
            assert!(align_of::<$mirror>() == align_of::<$c>(), "alignment differs from the C type");
            $(assert!(offset_of!($mirror, $field) == offset_of!($c, $field), "an offset differs from the C type");)+
            // A field that is missing from the list above does not compile.
            #[allow(unused)]
            fn all_fields(mirror: $mirror, c: $c) {
                type Mirror = $mirror;
                type C = $c;
                let Mirror { $($field: _),+ } = mirror;
                let C { $($field: _),+ } = c;
            }
        };
    };
}

same_layout!(
    wire::Header = process::types::stk_hdr {
        time_ns,
        start_ns,
        parent_start_ns,
        cgroup_id,
        kind,
        flags,
        tgid,
        tid,
        ppid,
        uid,
        gid,
        len,
        comm,
    }
);
same_layout!(
    wire::RawFileId = process::types::stk_file_id {
        ino,
        dev,
        generation,
        fs_magic,
        mode
    }
);
same_layout!(wire::Privileges = process::types::stk_privileges { caps, euid, egid });
same_layout!(wire::RawNamespaces = process::types::stk_namespaces { inum });
same_layout!(
    wire::ExecRecord = process::types::stk_exec {
        hdr,
        exe,
        exe_len,
        cwd_len,
        filename_len,
        interp_len,
        args_len,
        args_total,
        env_len,
        pad,
        now,
        before,
        login_uid,
        tty,
        tty_name,
        namespaces,
    }
);
same_layout!(
    wire::ForkRecord = process::types::stk_fork {
        hdr,
        child_start_ns,
        child_parent_start_ns,
        child_tgid,
        child_ppid,
        namespaces,
    }
);
same_layout!(
    wire::ExitRecord = process::types::stk_exit {
        hdr,
        utime_ns,
        stime_ns,
        rtime_ns,
        maxrss_pages,
        code,
        pad,
    }
);
same_layout!(
    wire::CpuTimes = process_summary::types::stk_cpu_times {
        utime_ns,
        stime_ns,
        rtime_ns,
        run_delay_ns,
        voluntary,
        involuntary,
    }
);
same_layout!(wire::CpuThread = process_summary::types::stk_cpu_thread { hdr, times });
same_layout!(
    wire::CpuProcess = process_summary::types::stk_cpu_process {
        hdr,
        freed,
        ending,
        times,
        code,
        wanted,
        ended,
        pad,
    }
);
same_layout!(
    wire::CpuEnding = process_summary::types::stk_cpu_ending {
        task,
        times,
        tid,
        early,
        freed,
        pad,
    }
);
same_layout!(
    wire::FileRecord = file::types::stk_file {
        hdr,
        file,
        result,
        open_flags,
        path_len,
        base_len
    }
);
same_layout!(
    wire::RenameRecord = file::types::stk_rename {
        hdr,
        file,
        replaced,
        result,
        rename_flags,
        old_len,
        new_len,
    }
);
same_layout!(
    wire::ChangeRecord = file::types::stk_change {
        hdr,
        file,
        size,
        atime_ns,
        mtime_ns,
        result,
        op,
        set,
        mode,
        uid,
        gid,
        dev,
        flags,
        path_len,
        base_len,
        other_len,
        type_len,
    }
);
same_layout!(
    wire::NetDenialRecord = fence_network::types::stk_net_denial {
        hdr,
        rule,
        access,
        verdict,
        error,
        family,
        protocol,
        address,
        port,
        own,
        blind,
        host
    }
);
same_layout!(
    wire::CallDenialRecord = fence_syscall::types::stk_call_denial {
        hdr,
        args,
        rule,
        nr,
        verdict,
        error,
        abi,
        traced
    }
);
same_layout!(
    wire::LimitDenialRecord = fence_limit::types::stk_limit_denial {
        hdr,
        amount,
        rule,
        nr,
        verdict,
        error,
        counted,
        abi
    }
);
same_layout!(
    wire::GuardDenialRecord = fence_guard::types::stk_guard_denial {
        hdr,
        rule,
        verdict,
        error,
        at,
        pad
    }
);
same_layout!(
    wire::Limit = fence_limit::types::stk_limit {
        part,
        rate,
        burst,
        full,
        filled_ns,
        epoch,
        rule,
        enforced,
        pad
    }
);
same_layout!(
    wire::NetPrefix = fence_network::types::stk_net_prefix {
        bits,
        half,
        address
    }
);
same_layout!(
    wire::NetRuling = fence_network::types::stk_net_ruling {
        epoch,
        first,
        count
    }
);
same_layout!(wire::HostLabels = fence_host::types::stk_host_labels { labels });
same_layout!(wire::HostTold = fence_host::types::stk_host_told { ip, host, until });
same_layout!(wire::HostUntil = fence_host::types::stk_host_until { until });
same_layout!(
    wire::HostAbout = fence_host::types::stk_host_about {
        netns,
        nameservers,
        lost,
        nameserver
    }
);
same_layout!(
    wire::NetPorts = fence_network::types::stk_net_ports {
        from,
        tcp,
        udp,
        other
    }
);
same_layout!(
    wire::DenialRecord = fence::types::stk_denial {
        hdr,
        file,
        rule,
        access,
        verdict,
        error,
        path_len,
        path
    }
);
same_layout!(
    wire::IdentityRecord = identity::types::stk_identity {
        file,
        start_ns,
        fd,
        tgid,
        name
    }
);
same_layout!(wire::AboveRecord = identity::types::stk_above { file, fd, depth });
same_layout!(
    wire::SeedRecord = identity::types::stk_seed {
        start_ns,
        parent_start_ns,
        tgid,
        ppid,
        ns_tgid,
        uid,
        comm,
    }
);
same_layout!(wire::TaskKey = scope::types::stk_task_key { start_ns, tgid });
same_layout!(wire::TaskEntry = scope::types::stk_task { flags, pad });
same_layout!(
    wire::FileKey = fence::types::stk_key {
        ino,
        dev,
        generation
    }
);
same_layout!(wire::NameKey = fence::types::stk_name { dir, hash });
same_layout!(
    wire::Ruling = fence::types::stk_ruling {
        epoch,
        flags,
        own,
        below
    }
);
same_layout!(wire::UserKey = fence::types::stk_user { uid, half });
same_layout!(wire::RuleNumbers = fence::types::stk_set { enforced, all });
same_layout!(wire::RuleAction = fence::types::stk_action { error, kill, hits });
same_layout!(
    wire::Armed = fence::types::stk_armed {
        epoch,
        flags,
        hash_key,
        otherwise,
        lost,
        kinds,
        canary_port,
        fileless,
        setuid,
        written,
        half,
        limits,
        limit_port,
        hosts
    }
);
same_layout!(
    wire::WrittenAbout = fence_written::types::stk_written_about {
        since_s,
        lost,
        canary
    }
);
same_layout!(wire::InForce = fence::types::stk_in_force { which, pad, half });
same_layout!(
    wire::Config = scope::types::stk_config {
        self_start_ns,
        self_tgid,
        scope,
        cgroups,
        cpus,
        ring_bytes,
        filter,
        min_latency_ns,
        min_bytes,
        sample,
        thin,
        process_limit,
        env,
        kinds,
        ranges,
        ports,
        prefixes,
        pad,
        range,
        port,
    }
);
same_layout!(wire::Range = scope::types::stk_range { address, mask });
same_layout!(wire::Ports = scope::types::stk_ports { first, last });
same_layout!(wire::RawPrefix = file::types::stk_prefix { len, pad, text });
same_layout!(
    wire::Rate = scope::types::stk_rate {
        hdr,
        second,
        sent,
        suppressed
    }
);
same_layout!(
    wire::SyscallRecord = syscall::types::stk_syscall {
        hdr,
        args,
        result,
        duration_ns,
        nr,
        abi,
    }
);
same_layout!(wire::SyscallKey = syscall::types::stk_syscall_key { task, nr, abi });
same_layout!(
    wire::SyscallSum = syscall::types::stk_syscall_sum {
        calls,
        errors,
        time_ns,
    }
);
same_layout!(
    wire::RawFlow = network::types::stk_flow {
        local,
        remote,
        local_port,
        remote_port,
        family,
        protocol,
    }
);
same_layout!(
    wire::NetRecord = network::types::stk_net {
        hdr,
        flow,
        duration_ns,
        sent_bytes,
        received_bytes,
        retransmits,
        result,
        incoming,
        value,
    }
);
same_layout!(
    wire::UnixRecord = network::types::stk_unix {
        hdr,
        result,
        kind,
        path_len,
        pad,
        path,
    }
);
same_layout!(
    wire::PayloadRecord = network::types::stk_payload {
        hdr,
        flow,
        moved,
        len,
        sent,
        incoming,
    }
);
same_layout!(
    wire::RawSocketRecord = network::types::stk_raw_socket {
        hdr,
        result,
        family,
        kind,
        protocol,
    }
);
same_layout!(
    wire::TcpStateRecord = network::types::stk_tcp_state {
        hdr,
        flow,
        duration_ns,
        incoming,
        before,
        after,
        pad,
    }
);
same_layout!(
    wire::NetKey = network::types::stk_net_key {
        task,
        remote,
        port,
        family,
        protocol,
        incoming,
    }
);
same_layout!(
    wire::NetSum = network::types::stk_net_sum {
        sent_bytes,
        received_bytes,
        sent_packets,
        received_packets,
        connections,
        failures,
        retransmits,
    }
);
same_layout!(
    wire::MemoryRecord = memory::types::stk_memory {
        hdr,
        address,
        bytes,
        call,
        errnum,
        prot,
        flags,
    }
);
same_layout!(wire::MemoryKey = memory::types::stk_memory_key { task, call, errnum });
same_layout!(wire::MemorySum = memory::types::stk_memory_sum { calls, bytes });
same_layout!(
    wire::MemoryState = memory::types::stk_memory_state {
        hdr,
        minor,
        major,
        ended_minor,
        ended_major,
        file,
        anon,
        shmem,
        swap,
        total_vm,
        peak_vm,
        peak_rss,
        heap_bytes,
    }
);
same_layout!(wire::MemoryForm = memory::types::stk_memory_form { page_bytes, events });
same_layout!(
    wire::OomRecord = memory::types::stk_oom {
        hdr,
        trigger_start_ns,
        file,
        anon,
        shmem,
        swap,
        total_vm,
        table_bytes,
        trigger_tgid,
        score_adj,
        trigger_comm,
    }
);
same_layout!(wire::RawDiskDevice = disk::types::stk_disk_device { name, major, minor });
same_layout!(
    wire::DiskRecord = disk::types::stk_disk {
        hdr,
        device,
        sector,
        bytes,
        queue_ns,
        device_ns,
        op,
        flags,
        error,
        issued
    }
);
same_layout!(
    wire::DiskKey = disk::types::stk_disk_key {
        task,
        device,
        op,
        pad
    }
);
same_layout!(
    wire::DiskSum = disk::types::stk_disk_sum {
        ios,
        bytes,
        errors,
        queue_ns,
        device_ns,
        queue,
        device
    }
);
same_layout!(
    wire::AllocationForm = allocation::types::stk_allocation_form {
        page_bytes,
        per_cpu_offset,
        preempt_count
    }
);
same_layout!(wire::SiteStack = allocation::types::stk_site_stack { depth, frames });
same_layout!(wire::AllocationKey = allocation::types::stk_allocation_key { task, source });
same_layout!(wire::SiteKey = allocation::types::stk_site_key { of, stack });
same_layout!(
    wire::AllocationSum = allocation::types::stk_allocation_sum {
        allocations,
        requested,
        bytes,
        frees,
        freed_requested,
        freed_bytes
    }
);
same_layout!(
    wire::Allocation = allocation::types::stk_allocation {
        site,
        requested,
        bytes
    }
);
same_layout!(wire::RawStack = profile::types::stk_stack { depth, frames });
same_layout!(
    wire::ProfileKey = profile::types::stk_profile_key {
        task,
        user,
        kernel,
        comm,
        epoch,
        preempted
    }
);
same_layout!(wire::ProfileSum = profile::types::stk_profile_sum { count, time_ns });
same_layout!(wire::FileSumKey = file_summary::types::stk_file_key { task, file });
same_layout!(
    wire::FileWay = file_summary::types::stk_file_way {
        count,
        bytes,
        time_ns,
        slots
    }
);
same_layout!(
    wire::FileSum = file_summary::types::stk_file_sum {
        opens,
        failures,
        read,
        written,
        fs_magic,
        mode
    }
);
same_layout!(
    wire::FilePathKey = file_summary::types::stk_file_path_key {
        ino,
        dev,
        generation,
        epoch,
        pad
    }
);
same_layout!(wire::CountedPath = file_summary::types::stk_file_path { len, flags, path });
