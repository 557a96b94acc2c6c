#!/usr/bin/env bash
# Boots a kernel in a virtual machine, runs a command in it as root and exits with the command's status.
#   vm.sh KERNEL CMD [ARG...]      KERNEL is a series that kernels.sh fetched; for a shell line use: sh -c '...'
# The guest sees this machine's files read-only, with throw-away overlays, and starts in the current directory's
# place in them. TMPDIR is an empty tmpfs. The command's standard output and error both come out on standard output.
#   VM_LSM      the lsm= list; "default" leaves the kernel's own         (all of Debian's, with bpf)
#   VM_TIMEOUT  seconds until the machine is ended, status 124           (600)
#   VM_ACCEL    tcg, kvm or auto (kvm if a probe boot proves it works)   (tcg)
#   VM_CPUS, VM_MEMORY                                                   (2, 1500M)
#   VM_ICOUNT   1: the guest's clock counts instructions, one a nanosecond, on one CPU: figures that repeat  (no)
#   VM_OUT      a directory the guest may write to, at the same path     (none)
# Variables whose names begin with STOCKADE_ or RUST_ are set in the guest too.
# Status 125: the machine died or never got as far as the command. It is never reported as the command's success.
set -euo pipefail
here=$PWD
cd "$(dirname "$0")/.."
root=$PWD

say() { printf 'vm: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 125
}

[ $# -ge 2 ] || die "usage: scripts/vm.sh KERNEL CMD [ARG...]"
series=$1
shift
kernel=$root/target/vm/kernels/$series
: "${VM_LSM:=lockdown,capability,landlock,yama,apparmor,bpf}" "${VM_TIMEOUT:=600}" "${VM_ACCEL:=tcg}" "${VM_OUT:=}"
: "${VM_CPUS:=2}" "${VM_MEMORY:=1500M}" "${VM_ICOUNT:=}"
PATH=$root/target/vm/virtme-ng/bin:$PATH:/usr/sbin:/sbin

[ -s "$kernel/release" ] || die "kernel $series is not here: make kernels"
release=$(cat "$kernel/release")
command -v vng >/dev/null || die "virtme-ng is not here: scripts/setup.sh vm"
command -v qemu-system-x86_64 >/dev/null || die "qemu is not here: scripts/setup.sh vm"
# The guest starts with tmpfs on these places.
case $root/ in
/run/* | /dev/* | /var/tmp/* | /var/log/* | /var/cache/*)
	die "$root is hidden in the guest: move the checkout out of ${root%"${root#/*/}"}"
	;;
esac

# accel: prints tcg or kvm. /dev/kvm alone proves nothing: there are machines where guests hang with it.
accel() {
	local cache=$root/target/vm/accel boot known=''
	case $VM_ACCEL in
	tcg | kvm) echo "$VM_ACCEL" ;;
	auto)
		boot=$(cat /proc/sys/kernel/random/boot_id)
		[ ! -s "$cache" ] || read -r known <"$cache"
		if [ "${known%% *}" != "$boot" ]; then
			known="$boot tcg"
			if [ -w /dev/kvm ]; then
				say "trying a boot with KVM, 40 seconds at most"
				if VM_ACCEL=kvm VM_TIMEOUT=40 "$root/scripts/vm.sh" "$series" true </dev/null >/dev/null 2>&1; then
					known="$boot kvm"
				fi
			fi
			printf '%s\n' "$known" >"$cache"
		fi
		echo "${known#* }"
		;;
	*) die "VM_ACCEL is '$VM_ACCEL'; it may be tcg, kvm or auto" ;;
	esac
}

if [ -n "$VM_ICOUNT" ]; then
	VM_ACCEL=tcg VM_CPUS=1
fi
accel=$(accel)
mkdir -p "$root/target/vm/run"
run=$(mktemp -d "$root/target/vm/run/$series.XXXXXX")
machine='' reader=''
finish() {
	trap - EXIT INT TERM
	# timeout(1) passes the signal on to the whole machine.
	[ -z "$machine" ] || kill -TERM "$machine" 2>/dev/null || true
	[ -z "$reader" ] || kill "$reader" 2>/dev/null || true
	rm -rf "$run"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# What runs in the guest. Output and status leave through virtio ports of our own: virtme-ng's need udev in the guest,
# and a serial line would turn LF into CR LF. Until the ports are found, everything goes to the console.
{
	echo 'set -u'
	echo 'export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8'
	compgen -e | { grep -E '^(STOCKADE_|RUST_)' || true; } | while read -r name; do
		printf 'export %s=%q\n' "$name" "${!name}"
	done
	printf 'export VM_KERNEL=%q VM_RELEASE=%q VM_ICOUNT=%q\n' "$series" "$release" "$VM_ICOUNT"
	cat <<-'END'
		modprobe virtio_console || echo "no virtio_console"
		port() {
			# The driver names a port some time after it has made it: poll, the host's timeout is the deadline.
			while :; do
				for name in /sys/class/virtio-ports/*/name; do
					[ -r "$name" ] && [ "$(cat "$name")" = "$1" ] && node=${name%/name} && echo "/dev/${node##*/}" && return
				done
				sleep 0.05
			done
		}
		out=$(port stockade.out)
		status=$(port stockade.status)
		mount -t bpf bpf /sys/fs/bpf
		mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup
		mountpoint -q /sys/kernel/security || mount -t securityfs securityfs /sys/kernel/security
		mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
		# /tmp is overlayfs over 9p, no place for tests of file identity.
		export TMPDIR=/run/stockade-test
		mkdir -p "$TMPDIR"
		mount -t tmpfs -o mode=1777 tmpfs "$TMPDIR"
		ip link set lo up 2>/dev/null
		# Moves what every command starts with from 9p into the overlays' memory: each open over 9p costs
		# 20 to 50 ms under emulation, and a test that runs a thousand commands would take minutes on 5.10.
		warm=$(ldd /bin/sh /bin/bash /bin/cat | grep -o '/[^ :]*' | sort -u)
		chmod u+r $warm /bin/sh /bin/bash /bin/cat /bin/true /etc/ld.so.cache
		[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
	END
	printf 'cd %q\n' "$here"
	printf '('
	printf ' %q' "$@"
	# shellcheck disable=SC2016
	printf ' ) >"$out" 2>&1 </dev/null\n'
	# shellcheck disable=SC2016
	echo 'echo "done $?" >"$status"'
} >"$run/guest"

options=(--verbose --run "$kernel/boot/vmlinuz-$release" --force-9p --disable-microvm --cpus "$VM_CPUS" --memory "$VM_MEMORY")
qemu="-device virtio-serial-pci,id=stk"
qemu+=" -chardev file,id=stkout,path=$run/out -device virtserialport,bus=stk.0,name=stockade.out,chardev=stkout"
qemu+=" -chardev file,id=stkst,path=$run/status -device virtserialport,bus=stk.0,name=stockade.status,chardev=stkst"
if [ "$accel" = tcg ]; then
	# Multi-threaded emulation together with the kernel's patching of its own text panicked 7.2.
	options+=(--disable-kvm)
	qemu+=" -accel tcg,thread=single"
	[ -z "$VM_ICOUNT" ] || qemu+=" -icount shift=0"
	# An emulated CPU leaks nothing; memory that is cleared each time and slow grace periods took 5.10 a sixth of its time.
	# Code that stands elsewhere in each process is translated anew for each: an exec took 53 ms instead of 16.
	options+=(--append 'norandmaps mitigations=off init_on_alloc=0 rcupdate.rcu_expedited=1')
	# Vector instructions and their state are called functions here: a fifth less without the newer ones.
	qemu+=' -cpu qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+rdrand'
	# QEMU's other thread polls every queue of every serial device each time a timer is set: 500 descriptors, an eighth
	# of a CPU.
	qemu+=' -global virtio-serial-device.max_ports=3 -global virtio-pci.ioeventfd=off'
fi
options+=("--qemu-opts=$qemu" --append 'loglevel=4')
[ "$VM_LSM" = default ] || options+=(--append "lsm=$VM_LSM")
[ -z "$VM_OUT" ] || options+=("--rwdir=$VM_OUT")
options+=(--exec "bash $run/guest")

# A pipe, so that output is seen as it comes. Its reader waits for qemu to open the other end.
mkfifo "$run/out"
cat "$run/out" &
reader=$!
# virtme-ng opens its output files anew, which would cut a regular file: give it pipes.
timeout --kill-after=10 "$VM_TIMEOUT" vng "${options[@]}" </dev/null > >(cat >"$run/console") 2>&1 &
machine=$!
vng=0
wait "$machine" || vng=$?
machine=''
# Opened for both, which never blocks, and closed: frees the reader if qemu never came.
exec 3<>"$run/out"
exec 3>&-
wait "$reader" || true
reader=''

done='' status=''
read -r done status <"$run/status" || true
if [ "$done" = "done" ] && [ "${status:-x}" -ge 0 ] 2>/dev/null; then
	exit "$status"
fi
say "the end of the $series machine's console:"
tail -n "${VM_CONSOLE_LINES:-40}" "$run/console" >&2
if [ "$vng" = 124 ] || [ "$vng" = 137 ]; then
	say "$release did not finish within $VM_TIMEOUT seconds"
	exit 124
fi
die "$release ended without the command's status (virtme-ng said $vng)"
