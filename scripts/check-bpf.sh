#!/usr/bin/env bash
# Compiles every BPF object for both architectures, with casts and without (build.rs), with all warnings as errors,
# against the libbpf headers of the locked libbpf-sys, and checks the format of the C sources. For the architecture that
# build.rs compiles for anyway, only warnings are looked for. CLANG and CLANG_FORMAT name other programs to use.
set -euo pipefail
cd "$(dirname "$0")/.."
clang=${CLANG:-clang}
clang_format=${CLANG_FORMAT:-clang-format}

say() { printf 'check-bpf: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

command -v "$clang" >/dev/null || die "clang is missing: scripts/setup.sh build"
command -v "$clang_format" >/dev/null || die "clang-format is missing: scripts/setup.sh check"

host=$(rustc -vV | sed -n 's/^host: //p')
# Without the platform, cargo fetches what other systems need.
manifest=$(cargo metadata --locked --format-version 1 --filter-platform "$host" | python3 -c '
import json, sys
print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "libbpf-sys"))') ||
	die "cargo does not know where libbpf-sys is"
include=target/check-bpf/include
mkdir -p "$include"
# The crate carries libbpf's headers under src/; programs include them as <bpf/...>.
ln -sfn "${manifest%/*}/libbpf/src" "$include/bpf"
[ -r "$include/bpf/bpf_helpers.h" ] || die "libbpf-sys carries no BPF headers"

shopt -s nullglob
sources=(src/bpf/*.bpf.c)
[ ${#sources[@]} -gt 0 ] || die "no src/bpf/*.bpf.c"
status=0
# compile SOURCE ARCH CASTS
compile() {
	local source=$1 arch=$2 casts=$3 object to
	object=target/check-bpf/$(basename "${source%.c}").$arch.$casts.o
	case $host:$arch in
	x86_64-*:x86 | aarch64-*:arm64) to=(-fsyntax-only) ;;
	*) to=(-o "$object") ;;
	esac
	"$clang" -g -O2 -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Werror -mcpu=v3 -fno-unroll-loops -fno-stack-protector \
		-target bpf -D"__TARGET_ARCH_$arch" -D"STK_CASTS=$casts" -I vmlinux -I src/bpf -isystem "$include" -c "$source" "${to[@]}" || {
		say "$source does not compile for $arch with STK_CASTS=$casts"
		return 1
	}
}
# As many at a time as there are CPUs.
jobs=$(nproc)
running=0
for source in "${sources[@]}"; do
	for variant in "x86 0" "x86 1" "arm64 0" "arm64 1"; do
		if [ "$running" -ge "$jobs" ]; then
			wait -n || status=1
			running=$((running - 1))
		fi
		# shellcheck disable=SC2086
		compile "$source" $variant &
		running=$((running + 1))
	done
done
while [ "$running" -gt 0 ]; do
	wait -n || status=1
	running=$((running - 1))
done
"$clang_format" --dry-run --Werror src/bpf/*.c src/bpf/*.h || {
	say "the C sources are not formatted: clang-format -i src/bpf/*.[ch]"
	status=1
}
[ "$status" = 0 ] && say "${#sources[@]} objects compile for x86 and arm64"
exit "$status"
