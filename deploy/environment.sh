# Sourced by deploy/try and deploy/test: finds Python, makes the virtual environment, installs what
# is locked, and only when the lock has changed. Needs nothing that a fresh Debian does not have or,
# for root, that apt cannot bring.

say() { printf '%s\n' "$*" >&2; }
fail() { say "$0: $*"; exit 1; }

# apt_install PACKAGE... : as root, what is missing; otherwise return 1 and leave it to the caller.
apt_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    say "installing $* with apt"
    if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1; then
        apt-get update -qq >/dev/null
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    fi
}

# What a rack of virtual machines with real firmware needs: command, Debian package.
need_firmware_lab() {
    local command package missing=()
    while read -r command package; do
        [ -e "$command" ] || PATH="$PATH:/usr/sbin" command -v "$command" >/dev/null || missing+=("$package")
    done <<'LIST'
ip iproute2
qemu-system-x86_64 qemu-system-x86
qemu-system-aarch64 qemu-system-arm
/usr/share/OVMF/OVMF_CODE_4M.fd ovmf
/usr/share/AAVMF/AAVMF_CODE.fd qemu-efi-aarch64
/usr/lib/ipxe/qemu/pxe-virtio.rom ipxe-qemu
/usr/lib/ipxe/snponly.efi ipxe
dnsmasq dnsmasq-base
xorriso xorriso
sshd openssh-server
busybox busybox-static
LIST
    [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}" || { say "missing: apt install ${missing[*]}"; return 1; }
}

works() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# The first Python of at least 3.11; Debian 12 and 13 have one, or apt brings it.
find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        works "$candidate" && { command -v "$candidate"; return; }
    done
    apt_install python3 python3-venv && works python3 && { command -v python3; return; }
    fail "Python 3.11 or newer is needed: apt install python3 python3-venv"
}

# make_venv PYTHON DIRECTORY LOCK : an environment with exactly what LOCK says.
make_venv() {
    local python=$1 directory=$2 lock=$3 stamp
    stamp="$("$python" -V) $(sha256sum <"$lock")"
    [ "$(cat "$directory/.lock" 2>/dev/null)" = "$stamp" ] && return
    say "making $directory with $("$python" -V)"
    rm -rf "$directory"
    if ! "$python" -m venv "$directory" >/dev/null 2>&1; then
        rm -rf "$directory"
        apt_install python3-venv || fail "Python's venv module is needed: apt install python3-venv"
        "$python" -m venv "$directory"
    fi
    "$directory/bin/python" -m pip install -qq --disable-pip-version-check --require-hashes -r "$lock"
    echo "$stamp" >"$directory/.lock"
}
