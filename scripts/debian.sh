# shellcheck shell=bash
# Sourced by kernels.sh and vmlinux.sh: reads packages from a Debian suite of our choice through a private apt
# configuration, so that the machine's own sources, lists and package state stay as they are.

# Where a machine that is not Debian, or one with an unusual mirror, says which archive to use.
: "${STOCKADE_DEBIAN_MIRROR:=}"
: "${STOCKADE_DEBIAN_SECURITY_MIRROR:=}"
debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
	say "$*"
	exit 1
}

# debian_mirror archive|security: the address of that archive, taken from the machine's own apt sources.
debian_mirror() {
	local codename uri
	if [ "$1" = archive ] && [ -n "$STOCKADE_DEBIAN_MIRROR" ]; then
		printf '%s\n' "${STOCKADE_DEBIAN_MIRROR%/}"
		return
	fi
	if [ "$1" = security ] && [ -n "$STOCKADE_DEBIAN_SECURITY_MIRROR" ]; then
		printf '%s\n' "${STOCKADE_DEBIAN_SECURITY_MIRROR%/}"
		return
	fi
	# shellcheck disable=SC1091
	codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
	[ "$1" = security ] && codename=$codename-security
	# indextargets reads one-line and deb822 sources alike and needs no downloaded lists. Third parties use the
	# distribution's codename too, but neither its component "main" nor a path that ends in /debian together.
	uri=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		awk -v release="$codename" '$2 == release && $3 == "main" && $1 ~ /\/debian(-security)?\/?$/ { print $1; exit }')
	[ -n "$uri" ] || return 1
	printf '%s\n' "${uri%/}"
}

# debian_options DIR ARCH: fills the array `debian_apt` with the options that select the private apt root DIR.
debian_options() {
	local dir=$1 arch=$2
	debian_apt=(
		-o "Dir::Etc::sourcelist=$dir/sources.list" -o "Dir::Etc::sourceparts=$dir/none"
		-o Dir::Etc::preferences=/dev/null -o "Dir::Etc::preferencesparts=$dir/none"
		-o "Dir::State::lists=$dir/lists" -o "Dir::State::status=$dir/status"
		-o "Dir::Cache=$dir/cache" -o "Dir::Log=$dir/log"
		-o "APT::Architecture=$arch" -o "APT::Architectures::=$arch"
		-o Acquire::Languages=none -o Acquire::Retries=3 -o APT::Sandbox::User=root
	)
}

# debian_suite DIR ARCH SUITE: prepares DIR as a private apt root for one suite, downloads its lists and selects it.
debian_suite() {
	local dir=$1 arch=$2 suite=$3 which=archive mirror
	case $suite in *-security) which=security ;; esac
	mirror=$(debian_mirror "$which") ||
		die "no Debian $which mirror in this machine's apt sources: set STOCKADE_DEBIAN_MIRROR and STOCKADE_DEBIAN_SECURITY_MIRROR"
	[ -r "$debian_keyring" ] || die "the Debian archive keys are missing: install debian-archive-keyring"
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/log" "$dir/none"
	printf 'deb [arch=%s signed-by=%s] %s %s main\n' "$arch" "$debian_keyring" "$mirror" "$suite" >"$dir/sources.list"
	# An empty status file: nothing counts as installed, whatever the machine has.
	: >"$dir/status"
	debian_options "$dir" "$arch"
	apt-get "${debian_apt[@]}" -qq update >&2 ||
		die "the package lists of $suite could not be read from $mirror"
}

# debian_newest PATTERN: of the packages whose name matches the extended regular expression, the one with the
# highest version, as "name version". The suite decides what is newest: fixed versions leave the mirror.
debian_newest() {
	local name version best='' best_version=''
	while read -r name version; do
		if [ -z "$best" ] || dpkg --compare-versions "$version" gt "$best_version"; then
			best=$name best_version=$version
		fi
	done < <(apt-cache "${debian_apt[@]}" dumpavail |
		awk '/^Package: /{p=$2} /^Version: /{v=$2} /^$/{if (p != "") print p, v; p=""}' | grep -E "^($1) " || true)
	[ -n "$best" ] || return 1
	printf '%s %s\n' "$best" "$best_version"
}

# debian_fetch DIR PACKAGE=VERSION: downloads one package into DIR and prints the file's path; apt has checked it
# against the signed lists.
debian_fetch() {
	local dir=$1 package=$2 scratch
	scratch=$(mktemp -d "$dir/download.XXXXXX")
	(cd "$scratch" && apt-get "${debian_apt[@]}" -qq download "$package" >&2) ||
		die "package $package could not be downloaded"
	find "$scratch" -name '*.deb' -print -quit | grep . || die "package $package could not be downloaded"
}
