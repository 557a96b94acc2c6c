#!/usr/bin/env bash
# Records the corpus of tests/replay.rs anew: what one small piece of work looks like on each kernel of the VM tests.
#   fixtures.sh [KERNEL...]          every kernel where none is named
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -gt 0 ] || set -- 5.10 6.1 6.12 7.2
for kernel; do
	out=$(mktemp -d "$PWD/target/vm/fixtures.XXXXXX")
	# The guest's own directory: it is not root's there.
	chmod 777 "$out"
	STOCKADE_FIXTURES=$out VM_OUT=$out scripts/vm-test.sh "$kernel" recording_replays
	mv "$out/work.stk" "tests/fixtures/$kernel.stk"
	mv "$out/work.jsonl" "tests/fixtures/$kernel.jsonl"
	rmdir "$out"
done
