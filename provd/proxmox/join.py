"""The join of a new node, as seen over SSH: what is run there, and what its words mean.

Pure: shell text goes out, text that came back is read. Who connects, waits and gives up is not known
here. Three things about `pvecm add` (pve-cluster 8.0 to 9.1) shape this file. It stops half-way when
whoever reads its output goes away, so it runs detached. Its exit status is 0 even when the join
failed, so only its words count. It waits for quorum without end, so it must be possible to stop it.

Values go to the remote shell as arguments of a constant script, each one quoted. PROVD_ROOT is a
prefix for the paths, so that all of it can run inside a directory; on a real node it is empty.
"""

import re
from base64 import b64decode
from collections.abc import Collection, Mapping
from shlex import quote

from attrs import frozen

from provd.domain.documents import one_line
from provd.domain.errors import BadDocument, Invalid
from provd.domain.hosts import OperationId
from provd.proxmox.join_words import STEPS, explain
from provd.proxmox.remote_shell import shell

_FINGERPRINT = re.compile(r"([0-9A-Fa-f]{2}:){31}[0-9A-Fa-f]{2}")
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,252}")


def _directory(operation_id: OperationId) -> str:
    return f"provd-join-{operation_id}"


# --- running pvecm add -----------------------------------------------------------------------------

# TERM must not end the wrapper before it has said that pvecm is gone. `:` and not '' as the trap:
# an ignored signal would stay ignored in pvecm. C, because perl complains of unknown locales on stderr.
_RUNNER = """\
d="$1"; shift
trap : TERM INT HUP
echo $$ >"$d/pid"
LC_ALL=C pvecm add "$@" >"$d/out" 2>"$d/err"
: >"$d/ended"
"""

# The password is read before anything is detached: a channel that closes early cannot swallow it.
# printf is part of the shell, so that no process has it among its arguments.
_START = f"""\
d="${{PROVD_ROOT:-}}/run/$1"; shift
umask 077
IFS= read -r password || {{ echo "no password came on standard input" >&2; exit 65; }}
mkdir -p "${{d%/*}}"
if ! mkdir "$d"; then
    test -d "$d"
    exit
fi
cd /
printf '%s\\n' "$password" | setsid sh -c {quote(_RUNNER)} provd-join "$d" "$@" >/dev/null 2>&1 &
"""

_PROGRESS = """\
d="${PROVD_ROOT:-}/run/$1"
state=none
if [ -d "$d" ]; then
    state=running
    pid="$(cat "$d/pid" 2>/dev/null)"
    if [ -n "$pid" ] && ! kill -0 "$pid" 2>/dev/null; then state=ended; fi
    if [ -e "$d/ended" ]; then state=ended; fi
fi
echo "provd-join $state"
for stream in out err; do
    echo "$stream $(tail -c 65536 "$d/$stream" 2>/dev/null | base64 | tr -d '\\n')"
done
echo "provd-join end"
"""

# pvecm hands TERM on to its worker, which is in a session of its own, and kills it at the third.
_STOP = """\
d="${PROVD_ROOT:-}/run/$1"
[ -d "$d" ] || exit 0
n=0
while [ ! -s "$d/pid" ] && [ "$n" -lt 20 ]; do # it was started a moment ago
    sleep 0.1
    n=$((n + 1))
done
pid="$(cat "$d/pid" 2>/dev/null)"
for signal in TERM TERM TERM KILL; do
    n=0
    while [ "$n" -lt 10 ]; do
        if [ -z "$pid" ] || [ -e "$d/ended" ] || ! kill -s 0 -- "-$pid" 2>/dev/null; then break 2; fi
        [ "$n" -gt 0 ] || kill -s "$signal" -- "-$pid"
        sleep 0.1
        n=$((n + 1))
    done
done
: >"$d/ended"
"""

# For --use_ssh: what pvecm would make itself, made before, so that the cluster can be told.
_ROOT_KEY = """\
ssh="${PROVD_ROOT:-}/root/.ssh"
umask 077
mkdir -p "$ssh"
if [ ! -s "$ssh/id_rsa.pub" ]; then
    ssh-keygen -q -t rsa -b 4096 -N '' -C "root@$(hostname)" -f "$ssh/id_rsa" </dev/null >&2 || exit 1
fi
cat "$ssh/id_rsa.pub"
"""

_KNOW_HOST = """\
file="${PROVD_ROOT:-}/root/.ssh/known_hosts"
address="$1"; shift
umask 077
[ -z "$(tail -c 1 "$file" 2>/dev/null)" ] || echo >>"$file" # ends a last line that somebody did not end
for key in "$@"; do
    grep -qsxF -- "$address $key" "$file" || printf '%s\\n' "$address $key" >>"$file"
done
"""

# Nothing in a cluster ever takes a key away: after a rebuild the old disk would still open every node.
_FORGET_FORMER_KEY = """\
r="${PROVD_ROOT:-}"
keys="$r/etc/pve/priv/authorized_keys"
own="$(cut -d ' ' -f 2 "$r/root/.ssh/id_rsa.pub" 2>/dev/null)"
[ -n "$own" ] && grep " root@$1\\$" "$keys" 2>/dev/null | grep -qvF -- "$own" || exit 0
umask 077
awk -v end=" root@$1" -v own="$own" \
    'substr($0, length($0) - length(end) + 1) != end || index($0, own)' "$keys" >"$keys.provd-new" \
    && [ -s "$keys.provd-new" ] && mv -f "$keys.provd-new" "$keys"
"""

# pve-docs, pvecm.adoc: "Separate a Node Without Reinstalling". A node of no cluster is left as it is.
_SEPARATE = """\
r="${PROVD_ROOT:-}"
[ -e "$r/etc/corosync/authkey" ] || [ -e "$r/etc/pve/corosync.conf" ] || exit 0
systemctl stop pve-cluster corosync
pmxcfs -l || exit 1
rm -f "$r/etc/pve/corosync.conf"
rm -rf "$r"/etc/corosync/* "$r"/var/lib/corosync/*
killall pmxcfs
n=0
while killall -0 pmxcfs 2>/dev/null && [ "$n" -lt 50 ]; do
    sleep 0.1
    n=$((n + 1))
done
systemctl start pve-cluster || exit 1
pvecm updatecerts >/dev/null 2>&1
echo separated
"""

_LEFTOVERS = """\
for file in /etc/corosync/authkey /etc/corosync/corosync.conf /etc/pve/corosync.conf; do
    if [ -e "${PROVD_ROOT:-}$file" ]; then echo "$file"; fi
done
"""

_CLEANUP = """\
d="${PROVD_ROOT:-}/run/$1"
[ -d "$d" ] || exit 0
[ -e "$d/ended" ] || { echo "the join still runs" >&2; exit 1; }
rm -rf "$d"
"""


def start_command(
    *,
    operation_id: OperationId,
    node: str,
    fingerprint: str,
    links: Mapping[int, str],
    nodeid: int | None = None,
    votes: int | None = None,
    force: bool = False,
    use_ssh: bool = False,
) -> str:
    """Start `pvecm add` on the new node, detached; a second start for the same operation does nothing.

    The root password of the cluster is the first line of standard input; with `use_ssh` that line is empty,
    and the member must know this node's key and this node the member's. Exit status 0: it was started, now
    or before. `links` are always given: without them the cluster does not look whether an address is taken.
    `force` takes over an entry of the same name. Raises `Invalid`.
    """
    if _FINGERPRINT.fullmatch(fingerprint) is None:
        raise Invalid(f"{fingerprint[:100]!r} cannot be given to pvecm add", "join_fingerprint")
    options = ["--fingerprint", fingerprint]
    for number, address in sorted(links.items()):
        options += [f"--link{number}", _node(address, f"link{number}")]
    options += ["--nodeid", str(nodeid)] if nodeid is not None else []
    options += ["--votes", str(votes)] if votes is not None else []
    options += ["--force", "1"] if force else []
    options += ["--use_ssh", "1"] if use_ssh else []
    return shell(_START, _directory(operation_id), _node(node, "existing_node"), *options)


def _node(text: str, field: str) -> str:
    if _NODE.fullmatch(text) is None:
        raise Invalid(f"{text[:100]!r} cannot be given to pvecm add", field)
    return text


def progress_command(*, operation_id: OperationId) -> str:
    """What `parse_progress` reads. Harmless at any time."""
    return shell(_PROGRESS, _directory(operation_id))


def stop_command(*, operation_id: OperationId) -> str:
    """End a join that still runs. Takes up to six seconds; what was done by then stays done."""
    return shell(_STOP, _directory(operation_id))


def cleanup_command(*, operation_id: OperationId) -> str:
    """Forget a join that has ended. Exit status 1: it still runs."""
    return shell(_CLEANUP, _directory(operation_id))


def root_key_command() -> str:
    """Print root's public RSA key, made where there is none."""
    return shell(_ROOT_KEY)


def know_host_command(address: str, keys: Collection[str]) -> str:
    """Let the node's SSH know the member at `address`. `keys` are lines of `.pub` files. Raises `Invalid`."""
    return shell(_KNOW_HOST, _node(address, "existing_node"), *keys)


def forget_former_key_command(hostname: str) -> str:
    """On a member: take the RSA key of the host's former installation out of the cluster's file."""
    return shell(_FORGET_FORMER_KEY, _node(hostname, "hostname"))


def leftovers_command() -> str:
    """Print each file that a half-done join leaves on the node, and that keeps it from another one."""
    return shell(_LEFTOVERS)


def separate_command() -> str:
    """Make a node that is half-way in a cluster a node of none again. Prints `separated` where it was."""
    return shell(_SEPARATE)


@frozen(kw_only=True)
class Progress:
    """`out` and `err` are the last 64 KiB of each."""

    out: str = ""
    err: str = ""
    started: bool
    finished: bool


# Searched for, not matched from the start: a login shell's start-up file may have something to say.
_PROGRESS_FRAME = re.compile(
    r"^provd-join (none|running|ended)\nout ([A-Za-z0-9+/=]*)\nerr ([A-Za-z0-9+/=]*)\nprovd-join end$",
    re.MULTILINE,
)


def parse_progress(text: str) -> Progress:
    """Raises `BadDocument` for what `progress_command` does not print."""
    match = _PROGRESS_FRAME.search(text)
    if match is None:
        raise BadDocument(f"cannot tell how far the join is: {one_line(text)!r}")
    try:
        out, err = (
            b64decode(stream, validate=True).decode(errors="replace") for stream in match.groups()[1:]
        )
    except ValueError as exc:
        raise BadDocument("cannot tell how far the join is: its output arrived damaged") from exc
    return Progress(out=out, err=err, started=match[1] != "none", finished=match[1] == "ended")


# --- judging it ------------------------------------------------------------------------------------


@frozen
class Joined:
    """pvecm says so. Ask the cluster before it is believed."""


@frozen
class StillJoining:
    step: str
    """What it does at the moment; empty as long as it has not said anything."""


@frozen
class JoinRefused:
    reason: str


def judge(progress: Progress, hostname: str) -> Joined | StillJoining | JoinRefused:
    """Only the words count: the exit status of `pvecm add` is 0 whatever happened."""
    if not progress.started:
        return JoinRefused("pvecm add was not started on this host")
    lines = [line for line in progress.out.splitlines() if line.strip()]
    last = lines[-1].strip() if lines else ""
    if not progress.finished:
        return StillJoining(next((step for start, step in STEPS if last.startswith(start)), one_line(last)))
    if last == f"successfully added node '{hostname}' to cluster." and not progress.err.strip():
        return Joined()
    return JoinRefused(explain(progress.out, progress.err))


# --- membership, as the node itself sees it --------------------------------------------------------


@frozen(kw_only=True)
class Membership:
    """`nodes` are the addresses of the members that are online; `name` is the cluster's."""

    clustered: bool
    quorate: bool = False
    name: str = ""
    nodes: tuple[str, ...] = ()
    local: str | None = None


_NO_CLUSTER = re.compile(r"Corosync config '.*' does not exist")
_STATUS_LINE = re.compile(r"^(Name|Quorate):[ \t]+(\S+)", re.MULTILINE)
# Id, votes, with a QDevice its flags, address. The QDevice itself has the id 0.
_MEMBER = re.compile(
    r"^0x(?!0{8})[0-9a-f]{8}[ \t]+\d+[ \t]+(?:[A-Z][A-Z,]*[ \t]+)?([0-9A-Fa-f.:]+)([ \t]\(local\))?",
    re.MULTILINE,
)


def membership_command() -> str:
    """What `parse_membership` reads, on both streams. Its exit status says nothing."""
    return shell("LC_ALL=C pvecm status")


def parse_membership(text: str) -> Membership:
    """Raises `BadDocument` when the node cannot tell, e.g. because pve-cluster does not run."""
    if _NO_CLUSTER.search(text):
        return Membership(clustered=False)
    if "Cluster information" not in text:
        raise BadDocument(f"the node cannot tell whether it is in a cluster: {one_line(text) or 'no word'}")
    said = {match[1]: match[2] for match in _STATUS_LINE.finditer(text)}
    members = [(match[1], match[2] is not None) for match in _MEMBER.finditer(text)]
    return Membership(
        clustered=True,
        quorate=said.get("Quorate") == "Yes",
        name=one_line(said.get("Name", "")),
        nodes=tuple(address for address, _ in members),
        local=next((address for address, is_local in members if is_local), None),
    )
