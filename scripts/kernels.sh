#!/usr/bin/env bash
# Fetches the kernels that the VM tests boot: the newest of each series in Debian's suites, unpacked under
# target/vm/kernels/SERIES. What is there is kept: a second run downloads nothing (--update looks for newer ones).
#   kernels.sh [--update] [SERIES...]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh

root=$PWD/target/vm/kernels
btf=$PWD/target/vm/btf
PATH=$PATH:/usr/sbin:/sbin

# Suites in the order they are asked; the highest version of all of them wins.
suites_of() {
	case $1 in
	5.10) echo bullseye bullseye-security ;;
	6.1) echo bookworm bookworm-security ;;
	6.12) echo trixie trixie-security ;;
	7.2) echo trixie-backports ;;
	*) die "no kernel series $1; there are 5.10, 6.1, 6.12 and 7.2" ;;
	esac
}

# Packages that make up a kernel, as regular expressions with the series in place of @. Not the cloud ones: they are
# built without 9p. From 7.0 linux-image-* is empty, and the image and the modules are packages of their own.
packages_of() {
	case $1 in
	7.*) echo 'linux-binary-@ linux-modules-@ linux-base-@' ;;
	*) echo 'linux-image-@' ;;
	esac
}

fetch() {
	local series=$1 work=$root/.work-$1 suite suites best_suite='' best_version='' lead found package version release
	local names name dir=$root/$1
	rm -rf "$work"
	mkdir -p "$work"
	suites=$(suites_of "$series")
	read -r lead _ <<<"$(packages_of "$series")"
	# A full release, as 7.2.12+deb13-amd64 or 6.1.0-39-amd64: not the meta packages, not cloud, rt or dbg.
	local pattern="${series//./\\.}\\.[0-9]+(-[0-9]+)?([+](deb|bpo)[0-9]+)?-amd64"
	for suite in $suites; do
		say "reading the package lists of $suite"
		(debian_suite "$work/$suite" amd64 "$suite") || {
			say "$suite cannot be read; going on with the others"
			continue
		}
		debian_options "$work/$suite" amd64
		found=$(debian_newest "${lead//@/$pattern}") || continue
		read -r package version <<<"$found"
		if [ -z "$best_suite" ] || dpkg --compare-versions "$version" gt "$best_version"; then
			best_suite=$suite best_version=$version release=${package#"${lead%@}"}
		fi
	done
	[ -n "$best_suite" ] || die "no $series kernel in: $suites"
	if [ "$(cat "$dir/package" 2>/dev/null)" = "$release $best_version" ]; then
		say "$series: $release ($best_version) is the newest and is here"
		rm -rf "$work"
		return
	fi
	debian_options "$work/$best_suite" amd64
	mkdir "$work/root"
	names=$(packages_of "$series")
	for name in $names; do
		name=${name//@/$release}
		say "$series: fetching $name $best_version from $best_suite"
		local deb
		deb=$(debian_fetch "$work" "$name=$best_version")
		dpkg -x "$deb" "$work/root"
		rm -rf "$(dirname "$deb")"
	done
	# virtme-ng looks for boot/ and lib/ side by side; newer packages know only usr/lib.
	mkdir -p "$work/root/boot" "$work/root/lib"
	[ -e "$work/root/lib/modules" ] || ln -s ../usr/lib/modules "$work/root/lib/modules"
	[ -e "$work/root/boot/vmlinuz-$release" ] ||
		ln -s "../lib/modules/$release/vmlinuz" "$work/root/boot/vmlinuz-$release"
	# The packages leave this to their scripts, which dpkg -x does not run.
	depmod -b "$work/root" "$release" || die "depmod failed for $release"
	mkdir -p "$btf"
	python3 scripts/kernel-btf.py "$work/root/boot/vmlinuz-$release" "$btf/$series.btf" ||
		die "the BTF of $release could not be read"
	rm -rf "$work/root/usr/share/doc" "$work/root/usr/share/bug"
	printf '%s\n' "$release" >"$work/root/release"
	printf '%s %s\n' "$release" "$best_version" >"$work/root/package"
	rm -rf "$dir"
	mv "$work/root" "$dir"
	rm -rf "$work"
	say "$series: $release ($best_version from $best_suite) is in target/vm/kernels/$series"
}

update=no
if [ "${1:-}" = --update ]; then
	update=yes
	shift
fi
[ $# -gt 0 ] || set -- 5.10 6.1 6.12 7.2
here=()
for series in "$@"; do
	suites_of "$series" >/dev/null
	if [ "$update" = no ] && [ -s "$root/$series/release" ] && [ -s "$btf/$series.btf" ]; then
		here+=("$(cat "$root/$series/release")")
		continue
	fi
	fetch "$series"
done
[ ${#here[@]} -eq 0 ] || say "nothing to download for ${here[*]}"
