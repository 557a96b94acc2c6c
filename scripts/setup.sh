#!/usr/bin/env bash
# Installs what is missing on a Debian or Ubuntu machine for one or more groups of work:
#   setup.sh build    compile the program
#   setup.sh vm       run the tests in virtual machines
#   setup.sh check    formatting checks
# A second run finds everything in place and opens no connection.
set -euo pipefail
cd "$(dirname "$0")/.."

# The version the boot recipe was proved with; a newer one may change its command line.
virtme_version=1.42
virtme_dir=target/vm/virtme-ng
# What the stamp in it must say: the version and our change to it (see below).
virtme_stamp="$virtme_version cache=loose"

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

# Tools of root's that a plain user's PATH may lack.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

missing=()

# need_command COMMAND PACKAGE
need_command() {
	command -v "$1" >/dev/null || missing+=("$2")
}

# need_package PACKAGE: for what has no command of its own; without dpkg the compiler is left to complain.
need_package() {
	command -v dpkg-query >/dev/null || return 0
	dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed || missing+=("$1")
}

install_missing() {
	[ ${#missing[@]} -gt 0 ] || return 0
	local packages
	packages=$(printf '%s\n' "${missing[@]}" | sort -u | tr '\n' ' ')
	packages=${packages% }
	if ! command -v apt-get >/dev/null; then
		die "install these packages or what your distribution calls them, then try again: $packages"
	fi
	if [ "$(id -u)" != 0 ]; then
		die "some packages are missing, run as root: apt-get install --no-install-recommends $packages"
	fi
	say "installing $packages"
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq update >&2 || say "the package lists could not be refreshed; trying with the old ones"
	# Split on purpose: one word per package.
	# shellcheck disable=SC2086
	apt-get -qq install --yes --no-install-recommends $packages >&2 ||
		die "apt-get could not install: $packages"
	missing=()
}

setup_build() {
	need_command cc gcc
	need_command make make
	need_command clang clang
	need_command pkg-config pkg-config
	need_package libelf-dev
	need_package zlib1g-dev
	need_package libc6-dev
	install_missing
	command -v cargo >/dev/null || die "cargo is missing: install Rust 1.89 or later with rustup"
}

# Whether a Python can make virtual environments: Debian's leaves ensurepip to a package of its own.
can_make_venv() {
	"$1" -c 'import ensurepip, venv' 2>/dev/null
}

# is_static COMMAND: whether it is there and needs no library, as what runs before a guest has its root must be.
is_static() {
	local found
	found=$(command -v "$1") && ! ldd "$found" >/dev/null 2>&1
}

setup_vm() {
	need_command qemu-system-x86_64 qemu-system-x86
	need_command modprobe kmod
	need_command mkfs.ext4 e2fsprogs
	need_command mkfs.xfs xfsprogs
	need_command mkfs.btrfs btrfs-progs
	need_command mount mount
	need_command strace strace
	need_command xz xz-utils
	need_command zstd zstd
	need_command python3 python3
	need_command ip iproute2
	is_static busybox || missing+=(busybox-static)
	[ ! -d /usr/share/keyrings ] || need_package debian-archive-keyring
	install_missing

	if [ "$(cat "$virtme_dir/version" 2>/dev/null)" = "$virtme_stamp" ] && "$virtme_dir/bin/vng" --version >/dev/null 2>&1; then
		return
	fi
	# An environment of our own: the machine's Python is nobody's to change, and Debian's forbids it.
	local python=python3
	if ! can_make_venv "$python"; then
		python=/usr/bin/python3
		if ! can_make_venv "$python"; then
			missing+=(python3-venv)
			install_missing
		fi
	fi
	say "installing virtme-ng $virtme_version into $virtme_dir"
	rm -rf "$virtme_dir"
	mkdir -p "${virtme_dir%/*}"
	"$python" -m venv "$virtme_dir" >&2 || die "no Python environment could be made in $virtme_dir"
	"$virtme_dir/bin/python" -m pip install --quiet "virtme-ng==$virtme_version" >&2 ||
		die "virtme-ng $virtme_version could not be installed with pip"
	"$virtme_dir/bin/vng" --version >/dev/null || die "virtme-ng was installed and does not start"
	# It mounts the guest's root without a page cache, so that every exec reads its libraries over 9p again: a quarter
	# of a second each on 5.10. The root is read-only, so the cache has nothing to lose. It has no option for that.
	find "$virtme_dir" -path '*/virtme/mkinitramfs.py' -exec \
		sed -i 's/trans=virtio,access=any,msize=/trans=virtio,access=any,cache=loose,msize=/' {} +
	printf '%s\n' "$virtme_stamp" >"$virtme_dir/version"
}

setup_check() {
	need_command clang-format clang-format
	install_missing
	command -v rustfmt >/dev/null && cargo clippy --version >/dev/null 2>&1 ||
		die "rustfmt or clippy is missing: rustup component add rustfmt clippy"
}

[ $# -gt 0 ] || die "usage: scripts/setup.sh build|vm|check..."
for group in "$@"; do
	case $group in
	build) setup_build ;;
	vm) setup_vm ;;
	check) setup_check ;;
	*) die "unknown group '$group'; there are build, vm and check" ;;
	esac
done
