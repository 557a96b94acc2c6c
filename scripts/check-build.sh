#!/usr/bin/env bash
# Checks the build itself: a missing or failing clang is told in plain words, a touched BPF header rebuilds, a second build
# does nothing, and what other systems get compiles and passes its tests.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}

die() {
	printf 'check-build: %s\n' "$*" >&2
	exit 1
}

# built ENV...: checks the library with these variables, which runs the whole of build.rs; its output, whatever its status.
# Features and profile as the tests and lints have them, so that nothing is built for this alone.
built() { env "$@" "$cargo" check --locked --lib --features stream 2>&1 || true; }

out=$(built CLANG=/nonexistent/clang)
grep -q 'install the package clang' <<<"$out" || die "a missing clang is not named: $out"
mkdir -p target/check-build
clang=$PWD/target/check-build/clang
printf '#!/bin/sh\n[ "$1" = --version ] || { echo "its own words" >&2; exit 1; }\n' >"$clang"
chmod +x "$clang"
out=$(built CLANG="$clang")
grep -q 'its own words' <<<"$out" || die "a failing clang's own words are lost: $out"
"$cargo" check --locked --lib --features stream --quiet
grep -qE 'Checking|Compiling' <<<"$(built)" && die "a second build is not a no-op"
touch src/bpf/wire.h
grep -qE '(Checking|Compiling) stockade' <<<"$(built)" || die "touching src/bpf/wire.h does not rebuild"

# What other systems get, on this one: the same public API, every runtime call answers Unsupported. Whether it is fast is
# another matter. The tests are the same with all features, which must compile.
portable() {
	env STOCKADE_PORTABLE=1 RUSTFLAGS='-D warnings' CARGO_TARGET_DIR=target/portable \
		CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_DEV_DEBUG=false \
		"$cargo" "$@" --locked --lib --quiet
}
portable test --features stream
portable check --no-default-features
portable check

# The cfg above still sees this system's crates; so the pure rooms are searched for what only Linux has.
pure=(src/sensor src/event src/wire src/policy src/sink src/error.rs src/session/mod.rs src/session/unsupported.rs)
if grep -nrE 'libbpf|rustix::|libc::|std::os::(linux|fd)|crate::kernel' "${pure[@]}"; then
	die "a pure room imports what only Linux has"
fi
printf 'check-build: clang errors, no-op build, rebuild on a header and the portable build are as they should be\n' >&2
