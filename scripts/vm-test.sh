#!/usr/bin/env bash
# Builds the privileged tests (the Cargo test target `vm`) and runs them:
#   vm-test.sh host [FILTER]         on the running kernel, as root
#   vm-test.sh ROW [FILTER]          in a VM, as one row of tests/vm/kernels.toml says
#   vm-test.sh all [FILTER]          every row, VM_JOBS of them at a time (2), with a table at the end
# A row passes when the tests ended with status 0 and printed their closing line; a VM that died has not passed.
# What the tests have shown of ways around the fence is kept in target/vm/bypasses. After all rows without a FILTER it must be
# what docs/BYPASSES.md says; with STOCKADE_BLESS set the page is written instead.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
table=tests/vm/kernels.toml

say() { printf 'vm-test: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 2
}

[ $# -ge 1 ] && [ $# -le 2 ] || die "usage: scripts/vm-test.sh host|ROW|all [FILTER]"
wanted=$1
filter=${2:-}

rows() { sed -n 's/^\["\{0,1\}\([^]"]*\)"\{0,1\}\]$/\1/p' "$table"; }

# value ROW KEY: a plain value of the table.
value() {
	awk -v row="$1" -v key="$2" '
		/^\[/ { gsub(/[]["]/, ""); inside = ($0 == row); next }
		inside && $1 == key && $2 == "=" { sub(/^[^=]*= */, ""); gsub(/"/, ""); print; exit }' "$table"
}

case $wanted in
host) [ "$(id -u)" = 0 ] || die "the tests on the running kernel need root" ;;
all) ;;
*) rows | grep -qxF -- "$wanted" || die "no row '$wanted' in $table; there are: $(rows | tr '\n' ' ')" ;;
esac

# Built as whoever runs this, and only run inside. Cargo says where it put the program and the tests.
say "building the tests"
# made COMMAND...: what this build command has made, one `KIND NAME PATH` a line.
made() {
	cargo "$@" --locked --features stream --message-format=json-render-diagnostics | python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("reason") == "compiler-artifact" and message.get("executable"):
        print(",".join(message["target"]["kind"]), message["target"]["name"], message["executable"])
'
}
built=$(made test --test vm --no-run && made build --examples) || die "the tests do not build"
tests=$(sed -n 's/^test vm //p' <<<"$built")
STOCKADE_BIN=$(sed -n 's/^bin stockade //p' <<<"$built")
[ -x "$tests" ] && [ -x "$STOCKADE_BIN" ] || die "cargo did not say where the program and its tests are"
# Copies: a build meanwhile would replace files that a guest has mapped.
bin=$root/target/vm/bin
mkdir -p "$bin"
install -m 755 "$STOCKADE_BIN" "$bin/stockade"
install -m 755 "$tests" "$bin/vm-tests"
sed -n 's/^example //p' <<<"$built" | while read -r name example; do
	install -m 755 "$example" "$bin/example-$name"
done
STOCKADE_BIN=$bin/stockade
tests=$bin/vm-tests
export STOCKADE_BIN

logs=$root/target/vm/log
mkdir -p "$logs"
summary=$logs/summary
: >"$summary"
failed=0

# told: the output without the lines that are for scripts/bypasses.py.
told() { sed -u '/^bypass\t/d'; }

# run_row ROW: runs it, keeps its output and adds one line to the summary.
run_row() {
	local row=$1 log=$logs/$1.log status=0 start=$SECONDS release closing
	local arguments=("$tests" --kernel-table "$root/$table" --row "$row")
	[ -z "$filter" ] || arguments+=("$filter")
	if [ "$row" = host ]; then
		release=$(uname -r)
		say "running the tests on this machine's own $release"
		"${arguments[@]}" </dev/null 2>&1 | tee "$log" | told || status=$?
	else
		local kernel lsm
		kernel=$(value "$row" kernel)
		lsm=$(value "$row" lsm)
		scripts/kernels.sh "$kernel"
		release=$(cat "target/vm/kernels/$kernel/release")
		say "row $row: $release with lsm=$lsm"
		VM_LSM=$lsm VM_TIMEOUT=${VM_TIMEOUT:-1800} scripts/vm.sh "$kernel" "${arguments[@]}" </dev/null | tee "$log" |
			told || status=$?
		scripts/bypasses.py collect "$row" "$log" ${filter:+--some}
	fi
	closing=$(grep -E '^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$' "$log" | tail -n 1 || true)
	if [ "$status" = 0 ] && [ -z "$closing" ]; then
		say "row $row: the tests ended without their closing line"
		status=125
	fi
	[ "$status" = 0 ] || failed=$((failed + 1))
	printf '%s|%s|%s|%s|%s\n' "$row" "$release" "$((SECONDS - start))" "$status" "${closing:-no result}" >>"$summary"
}

if [ "$wanted" != all ]; then
	run_row "$wanted"
	[ "$failed" = 0 ] || say "row $wanted failed, status $(cut -d'|' -f4 "$summary"); its output is in target/vm/log/$wanted.log"
	[ "$failed" = 0 ]
	exit
fi

# Fetched first: two rows can share a kernel. A row's output comes in one piece, when it has ended.
scripts/kernels.sh
mapfile -t all < <(rows)
jobs=${VM_JOBS:-2}
running=0
for row in "${all[@]}"; do
	if [ "$running" -ge "$jobs" ]; then
		wait -n || true
		running=$((running - 1))
	fi
	say "row $row begins"
	{
		out=$(run_row "$row" 2>&1)
		printf '%s\n' "$out"
	} &
	running=$((running + 1))
done
wait
# In the order of the table, whichever ended first.
ordered=$(for row in "${all[@]}"; do grep -F "$row|" "$summary" | awk -F'|' -v row="$row" '$1 == row' ||
	printf '%s|not run|0|125|no result\n' "$row"; done)
printf '%s\n' "$ordered" >"$summary"
failed=$(awk -F'|' '$4 != 0' "$summary" | wc -l)
printf '\n%-18s %-26s %8s %7s  %s\n' row kernel seconds status result
while IFS='|' read -r row release seconds status result; do
	printf '%-18s %-26s %8s %7s  %s\n' "$row" "$release" "$seconds" "$status" "$result"
done <"$summary"
# The sum of the closing lines; a row without one counts as a failure.
awk -F'|' '
	{ split("", part)
	  if ($5 ~ /passed/) { split($5, part, /[ ,]+/); passed += part[1]; failures += part[3]; skipped += part[5] }
	  if ($4 != 0 && (part[3] + 0 == 0 || $5 !~ /passed/)) failures++ }
	END { printf "\n%d passed, %d failed, %d skipped\n", passed, failures, skipped }' "$summary"
[ "$failed" = 0 ] || exit 1
if [ -z "$filter" ]; then
	if [ -n "${STOCKADE_BLESS:-}" ]; then scripts/bypasses.py write; else scripts/bypasses.py check; fi
fi
