#!/usr/bin/env bash
# Shows the main job on real input: a command inside a fence tries to get at a file by its name, a symbolic link, a hard
# link and after a rename; the same file stays readable outside. Fails when anything but that happens.
#   demo.sh           on this machine where its kernel can fence, otherwise in a virtual machine
#   demo.sh --here    on the running kernel or not at all
#   STOCKADE_BIN      the program to show    (target/release/stockade)
set -euo pipefail
cd "$(dirname "$0")/.."
stockade=${STOCKADE_BIN:-$PWD/target/release/stockade}
export LC_ALL=C

say() { printf 'demo: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

[ -x "$stockade" ] || die "$stockade is not there: make build"

if [ "${1:-}" != --here ]; then
	if examination=$("$stockade" doctor --json 2>/dev/null) || grep -q '"can_fence": true' <<<"$examination"; then
		say "this machine's kernel ($(uname -r)) can fence"
	else
		say "this machine ($(uname -r), user $(id -un)) cannot fence; 'stockade doctor' says why"
		say "going on in a virtual machine with Debian's 6.12, emulated: about a minute"
		scripts/setup.sh vm
		scripts/kernels.sh 6.12
		exec scripts/vm.sh 6.12 bash scripts/demo.sh --here
	fi
fi

dir=$(mktemp -d "${TMPDIR:-/tmp}/demo.XXXXXX")
outside=''
cleanup() {
	[ -z "$outside" ] || kill "$outside" 2>/dev/null || true
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

cd "$dir"
echo 'the combination is 31415' >secret
echo 'visiting hours are 9 to 5' >public
ln -s secret symlink
ln secret hardlink
mkfifo ready renamed

# What runs inside.
cat >fenced.sh <<'END'
as_expected=yes
# try refused|allowed COMMAND
try() {
	said=$(sh -c "$2" 2>&1) && how=allowed || how=failed
	case $said in *'Operation not permitted') how=refused ;; esac
	printf '  inside   $ %-16s %s\n' "$2" "$said"
	[ "$how" = "$1" ] || { echo "  ^^^^^^   $how, and should have been $1"; as_expected=no; }
}
try allowed 'cat public'
try refused 'cat secret'
try refused 'cat symlink'
try refused 'cat hardlink'
try refused 'echo x >>secret'
try refused 'mv secret mine'
try refused 'ln secret mine'
try refused 'rm -f secret'
echo go >ready
read -r _ <renamed
try refused 'cat elsewhere'
# 7, so that the exit code can be recognised on its way out.
[ "$as_expected" = yes ] && exit 7
exit 1
END

# Meanwhile, outside: reads the file, and renames it under the fence's feet. Answers in any case, or both would wait.
(
	read -r _ <ready
	said=$(cat secret 2>&1) || true
	printf '  outside  $ %-16s %s\n' 'cat secret' "$said"
	printf '  outside  $ %s\n' 'mv secret elsewhere'
	mv secret elsewhere || true
	echo go >renamed
	[ "$said" = 'the combination is 31415' ]
) &
outside=$!

echo "\$ stockade run --deny-file secret --output events -- sh fenced.sh"
code=0
"$stockade" run --deny-file secret --output events -- sh fenced.sh 2>report || code=$?
if [ "$code" != 7 ]; then
	grep -v '^  libbpf:' report | cut -c1-300 >&2
	[ "$code" != 40 ] || die "this kernel cannot fence, and the command has not run (exit code 40)"
	die "the command ended with $code; with 7 everything would have been as it should"
fi
wait "$outside" || die "the file could not be read outside the fence"
outside=''
[ "$(cat elsewhere)" = 'the combination is 31415' ] || die "the file was changed"

echo
echo "What stockade saw: each program that was refused, from start to end"
head -n 1 events
# Denials have a queue of their own: put them where they belong in time.
tail -n +2 events | sort -s -k1,1 | awk '
	{ line[NR] = $0; action[NR] = $2; pid[NR] = $3 }
	$2 == "denial" { refused[$3] = 1 }
	END {
		for (i = 1; i <= NR; i++)
			if (refused[pid[i]] && action[i] ~ /^(exec|denial|exit)$/ || refused[pid[i]] && line[i] ~ /EPERM/)
				print line[i]
	}' | sed "s|$dir|DIR|g"
denials=$(grep -c ' denial .* DENIED rule=' events || true)
[ "$denials" = 8 ] || die "there are $denials denials in the events, and 8 accesses were refused"

echo
echo "What it vouches for at the end"
grep -v '^  probe ' report
echo
echo "exit code $code, the command's own: eight accesses were refused, and the file is unharmed"
