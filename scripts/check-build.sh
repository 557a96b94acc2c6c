#!/usr/bin/env bash
# Checks the build itself: a second build does nothing, a touched BPF header rebuilds, a missing or failing clang is
# told in plain words, and what other systems get compiles and passes its tests.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}

die() {
	printf 'check-build: %s\n' "$*" >&2
	exit 1
}

# build ENV...: a build with these variables; its output, whatever its status. Features as the tests are built with, so
# that nothing is built for this alone.
build() { env "$@" "$cargo" build --locked --features stream 2>&1 || true; }

# A clang that fails once it is told to: the same variable all along, because another value is a reason to rebuild.
mkdir -p target/check-build
clang=$PWD/target/check-build/clang
rm -f "$clang".fails
cat >"$clang" <<EOF
#!/bin/sh
[ "\$1" = --version ] || [ ! -e "$clang.fails" ] || { echo "its own words" >&2; exit 1; }
exec ${CLANG:-clang} "\$@"
EOF
chmod +x "$clang"
env CLANG="$clang" "$cargo" build --locked --features stream --quiet
! build CLANG="$clang" | grep -q Compiling || die "a second cargo build is not a no-op"
touch src/bpf/wire.h "$clang".fails
out=$(build CLANG="$clang")
grep -q 'Compiling stockade' <<<"$out" || die "touching src/bpf/wire.h does not rebuild"
grep -q 'its own words' <<<"$out" || die "a failing clang's own words are lost: $out"
out=$(build CLANG=/nonexistent/clang)
grep -q 'install the package clang' <<<"$out" || die "a missing clang is not named: $out"

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
"$cargo" build --locked --features stream --quiet
printf 'check-build: no-op build, rebuild on a header, clang errors and the portable build are as they should be\n' >&2
