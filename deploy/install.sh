#!/bin/sh
# Installs provd on a Debian host, or brings an installed one up to date. Run it as root from a
# checkout, as often as you like: it never overwrites a configuration.
#
#   deploy/install.sh             install
#   deploy/install.sh --update    the same, and restart the service if it runs
#
#   --root DIR    put everything below DIR, for packaging and for a look: no user, no systemctl
#   --no-deps     leave the virtual environment without the libraries, for a look without a network
#
# provd is copied, not built: a wheel would fetch a build backend that the lock file does not cover.
# /opt/provd/venv holds the locked libraries, /opt/provd/lib provd itself, and a .pth file joins them.
set -eu

root= update=no deps=yes
while [ $# -gt 0 ]; do
    case $1 in
        --update) update=yes ;;
        --no-deps) deps=no ;;
        --root) shift; root=${1:?--root needs a directory} ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 64 ;;
    esac
    shift
done

here=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
python=${PYTHON:-/usr/bin/python3}
home=$root/opt/provd
umask 022
PATH=$PATH:/usr/sbin:/sbin  # a plain su leaves them out

die() { echo "install.sh: $*" >&2; exit 1; }
say() { echo "install.sh: $*"; }

# --- what must be there -----------------------------------------------------------------------------

[ -n "$root" ] || [ "$(id -u)" -eq 0 ] || die "must run as root (or with --root DIR for a look)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    die "$python is missing or older than 3.11; set PYTHON to another one"
"$python" -c 'import venv, ensurepip' 2>/dev/null || die "Python's venv is missing: apt install python3-venv"

# --- the libraries ----------------------------------------------------------------------------------

# A venv belongs to one Python; after a distribution upgrade it is made anew.
version='import sys; print(*sys.version_info[:2], sep=".")'
if [ $deps = no ]; then pip=--without-pip; else pip=; fi
if [ "$("$home/venv/bin/python" -c "$version" 2>/dev/null)" != "$("$python" -c "$version")" ] ||
    { [ $deps = yes ] && ! "$home/venv/bin/python" -c 'import pip' 2>/dev/null; }; then
    say "making $home/venv"
    mkdir -p "$home"
    "$python" -m venv --clear $pip "$home/venv"
fi
if [ $deps = yes ]; then
    say "installing the locked libraries"
    "$home/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
        --only-binary :all: --require-hashes -r "$here/requirements.lock"
fi

# --- provd itself: built beside, then swapped in ----------------------------------------------------

rm -rf "$home/lib.new" "$home/lib.old"
mkdir -p "$home/lib.new"
cp -R "$here/provd" "$here/static" "$home/lib.new/"
find "$home/lib.new" -name __pycache__ -type d -prune -exec rm -rf {} +
chmod -R u=rwX,go=rX "$home/lib.new"
# Compiled here: the service may not write to /opt.
"$home/venv/bin/python" -m compileall -q -s "$home/lib.new" -p /opt/provd/lib "$home/lib.new/provd"
[ ! -e "$home/lib" ] || mv "$home/lib" "$home/lib.old"
mv "$home/lib.new" "$home/lib"
rm -rf "$home/lib.old"

site=$("$home/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo /opt/provd/lib > "$site/provd.pth"

mkdir -p "$root/usr/local/bin"
# -P: the directory that somebody stands in is no place to import from.
printf '%s\n' '#!/bin/sh' 'exec /opt/provd/venv/bin/python -P -m provd "$@"' > "$root/usr/local/bin/provd.new"
chmod 755 "$root/usr/local/bin/provd.new"
mv "$root/usr/local/bin/provd.new" "$root/usr/local/bin/provd"

# --- user, configuration, unit ----------------------------------------------------------------------

if [ -z "$root" ] && ! id provd >/dev/null 2>&1; then
    say "making the user provd"
    useradd --system --user-group --home-dir /var/lib/provd --no-create-home --shell /usr/sbin/nologin provd
fi

mkdir -p "$root/etc/provd"
chmod 750 "$root/etc/provd"
fresh=no
for name in provisioning.yaml server-types.yaml; do
    [ -e "$root/etc/provd/$name" ] && continue
    install -m 640 "$here/deploy/examples/$name" "$root/etc/provd/$name"
    [ -n "$root" ] || chgrp provd "$root/etc/provd/$name"
    fresh=yes
done
[ -n "$root" ] || chgrp provd "$root/etc/provd"

mkdir -p "$root/etc/systemd/system"
install -m 644 "$here/systemd/provd.service" "$root/etc/systemd/system/provd.service"

if [ -z "$root" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    if [ $update = yes ]; then systemctl try-restart provd.service; fi
fi

# --- what comes next --------------------------------------------------------------------------------

if [ $fresh = yes ]; then
    cat <<END

provd is installed. Now:
  1. Edit /etc/provd/provisioning.yaml and /etc/provd/server-types.yaml
  2. runuser -u provd -- provd check-config
  3. apt install ipxe              unless you bring iPXE builds of your own (pxe.loader_dir)
  4. runuser -u provd -- provd image import FILE.iso
  5. runuser -u provd -- provd doctor
  6. systemctl enable --now provd
  7. journalctl -u provd -f        the first start prints a link to sign in with
END
elif [ $update = yes ]; then
    say "provd is up to date; a running one was restarted"
else
    say "provd is installed; systemctl restart provd starts the new version"
fi
