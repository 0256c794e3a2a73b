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
from shlex import quote

from attrs import frozen

from provd.domain.documents import one_line
from provd.domain.errors import BadDocument, Invalid
from provd.domain.hosts import OperationId

_FINGERPRINT = re.compile(r"([0-9A-Fa-f]{2}:){31}[0-9A-Fa-f]{2}")
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,252}")
_KEY_BODY = re.compile(r"[A-Za-z0-9+/]{40,}={0,2}")


def _shell(script: str, *values: str) -> str:
    """`values` are $1, $2, … of `script`. The login shell only has to know quotes; it need not be POSIX."""
    return " ".join(["sh", "-c", quote(script), "provd", *map(quote, values)])


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

_CLEANUP = """\
d="${PROVD_ROOT:-}/run/$1"
[ -d "$d" ] || exit 0
[ -e "$d/ended" ] || { echo "the join still runs" >&2; exit 1; }
rm -rf "$d"
"""


def start_command(
    *, operation_id: OperationId, node: str, fingerprint: str, link0: str, force: bool = False
) -> str:
    """Start `pvecm add` on the new node, detached; a second start for the same operation does nothing.

    The root password of the cluster is the first line of standard input. Exit status 0: it was
    started, now or before. `link0` is always given: without it the cluster does not look whether the
    address is taken. `force` takes over an entry of the same name. Raises `Invalid`.
    """
    for value, pattern, field in (
        (node, _NODE, "existing_node"),
        (link0, _NODE, "link0"),
        (fingerprint, _FINGERPRINT, "join_fingerprint"),
    ):
        if pattern.fullmatch(value) is None:
            raise Invalid(f"{value[:100]!r} cannot be given to pvecm add", field)
    options = ["--fingerprint", fingerprint, "--link0", link0, *(["--force", "1"] if force else [])]
    return _shell(_START, _directory(operation_id), node, *options)


def progress_command(*, operation_id: OperationId) -> str:
    """What `parse_progress` reads. Harmless at any time."""
    return _shell(_PROGRESS, _directory(operation_id))


def stop_command(*, operation_id: OperationId) -> str:
    """End a join that still runs. Takes up to six seconds; what was done by then stays done."""
    return _shell(_STOP, _directory(operation_id))


def cleanup_command(*, operation_id: OperationId) -> str:
    """Forget a join that has ended. Exit status 1: it still runs."""
    return _shell(_CLEANUP, _directory(operation_id))


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


STEPS: tuple[tuple[str, str], ...] = (
    ("Establishing API connection", "logging in to the cluster"),
    ("Request addition of this node", "asking the cluster for a place"),
    ("Join request OK", "the cluster accepted, setting up the node"),
    ("waiting for quorum", "waiting for quorum (UDP 5405 to 5412 must pass between all nodes)"),
)
"""Beginnings of the last line, and what they mean. Other lines speak for themselves."""


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


CAUSES: tuple[tuple[str, str], ...] = (
    # on the new node, before the cluster is asked
    (
        r"^fingerprint: value does not match",
        "proxmox.join_fingerprint is not a SHA-256 fingerprint: 32 pairs of hex digits with colons",
    ),
    (
        r"^((?:400 .*|Unknown option: .*))$",
        "this version of pvecm does not understand what provd asks of it ({0})",
    ),
    (r"Navigate out of /etc/pve", "pvecm was started inside /etc/pve; rebuild the host again"),
    (
        r"EOF while reading password|password input aborted",
        "the cluster's root password did not reach pvecm; start the rebuild again and give it",
    ),
    (
        r"can't lock file '/var/lock/pvecm\.lock'",
        "another pvecm is at work on the node or on the cluster member; let it end, then rebuild again",
    ),
    (
        r"hostname lookup '(.+?)' failed",
        "{0} cannot resolve its own name; its /etc/hosts must have a line with its address",
    ),
    (
        r"address lookup for '(.+?)' did not find any IP address",
        "{0} resolves its own name to a loopback address only; correct its /etc/hosts",
    ),
    (
        r"\* authentication key '(.+?)' already exists",
        "{0} is left over from an earlier join; rebuild the host from scratch",
    ),
    (
        r"\* cluster config '.+?' already exists|\* corosync is already running",
        "the node is in a cluster already, or half-way in one; rebuild the host from scratch",
    ),
    (
        r"\* this host already contains virtual guests",
        "there are guests on the new node, and one with guests cannot join; move or delete them",
    ),
    (
        r"\* .*?cannot use (?:IP )?'(.+?)'",
        "{0} is not an address of the new node; its address has changed since it called home",
    ),
    (
        r"ipcc_send_rec\[\d\] failed|Unable to load access control list",
        "pve-cluster does not run on the new node; look at `journalctl -u pve-cluster` there",
    ),
    (r"please run as root", "provd is not root on the new node; look at ssh.user in the configuration"),
    (r"pvecm: (?:command )?not found", "there is no pvecm on the host; it is not a Proxmox VE node"),
    # on the way to the member
    (
        r"^500 Can't connect to (\S+) \((.*)\)",
        "the new node cannot reach the cluster's API at {0} ({1}); check that this member is up and the "
        "network between them",
    ),
    (
        r"^fingerprint '([0-9A-F:]+)' not verified",
        "the cluster member shows another certificate than proxmox.join_fingerprint says; if it was "
        "renewed, set that to {0}",
    ),
    (
        r"^Fingerprint not verified",
        "the cluster member's certificate is not trusted; set proxmox.join_fingerprint",
    ),
    (
        r"^(?:401 )?401 authentication failure",
        "the cluster member does not accept the root password; start the rebuild again with the right one",
    ),
    (
        r"TFA-enabled login|TFA required",
        "root@pam of the cluster has a second factor, with which no machine can join; take it away while "
        "hosts join",
    ),
    (
        r"Remote side is not able to use API",
        "the cluster member is too old to be joined over its API; update it",
    ),
    # from the member
    (
        r"unsupported old API version",
        "the new node's Proxmox VE is too old for this cluster; publish a newer ISO",
    ),
    (
        r"cluster not ready - no quorum|cfs-lock .* error: no quorum",
        "the cluster has no quorum and takes nobody in; bring more of its members back first",
    ),
    (
        r"can't add existing node '(.+?)'",
        "the cluster lists a node {0} already; when that is this host's former life, run "
        "`pvecm delnode {0}` on a member and rebuild again",
    ),
    (
        r"address '(.+?)' already used on link \S+ by node '(.+?)'",
        "the cluster lists {0} as the address of node {1}; give the host another address, or run "
        "`pvecm delnode {1}` on a member",
    ),
    (
        r"link (\d+) exists in cluster config but wasn't specified|no links given but multiple links",
        "the cluster has more than one corosync link, and provd joins with one only; join by hand with "
        "`pvecm add … --link0 … --link1 …`",
    ),
    (
        r"link (\d+) specified for new node doesn't exist",
        "the cluster does not use corosync link {0}, which provd joins with; join by hand",
    ),
    (
        r"no links and no fallback ip",
        "the new node has no address that the cluster could use; correct its /etc/hosts",
    ),
    (
        r"invalid corosync\.conf",
        "the cluster's corosync.conf would become invalid; look at /etc/pve/corosync.conf on a member",
    ),
    (
        r"cfs-lock .* error: got lock request timeout",
        "another change to the cluster is under way; rebuild again in two minutes",
    ),
    # half-way
    (
        r"^cannot backup old database",
        "the new node could not save its database and is half-way in the cluster; run `pvecm delnode` "
        "for it on a member and rebuild again",
    ),
    (
        r"waiting for quorum\.\.\.(?!OK)",
        "the cluster lists the new node, but they never met; check that UDP 5405 to 5412 passes between all "
        "nodes, run `pvecm delnode` for it on a member and rebuild again",
    ),
    (
        r"^broken pipe|received interrupt",
        "the join was stopped half-way; when a member lists the node, run `pvecm delnode` for it there, "
        "then rebuild again",
    ),
)
"""Patterns in the output (both streams, by line), and what an operator can do about each."""

ON_THE_WAY = (
    *(start for start, _ in STEPS),
    "Login succeeded",
    "check cluster join API version",
    "cluster: ",
    "stopping pve-cluster service",
    "backup old database",
    "(re)generate node files",
    "generate new node certificate",
    "merge authorized SSH keys",
    "generated new node certificate",
)
"""Beginnings of lines after which pvecm has more to do: whoever ends there was killed."""

SHELL_WORDS = ("Killed", "Terminated")
"""What the shell around pvecm says of its end (dash 0.5); it is no word of pvecm's."""

_REFUSAL = re.compile(r"An error occurred on the cluster node: (.+)")


def explain(out: str, err: str) -> str:
    """Why a join failed and what to do, in one sentence. What is not known is quoted."""
    text = f"{out}\n{err}"
    reasons = [
        sentence.format(*(one_line(group or "", 120) for group in match.groups()))
        for pattern, sentence in CAUSES
        if (match := re.search(pattern, text, re.MULTILINE)) is not None
    ]
    if reasons:
        return "; ".join(reasons)
    refusal = _REFUSAL.search(out)
    if refusal is not None:
        return f"the cluster refused the node: {one_line(refusal[1])}"
    said = "" if err.strip() in SHELL_WORDS else err.strip()
    last = (said or out.strip()).splitlines()[-1:]
    if last and not said and last[0].startswith(ON_THE_WAY):
        return f"pvecm add was stopped half-way, after it had said {one_line(last[0])!r}"
    return f"pvecm add failed: {one_line(last[0])}" if last else "pvecm add ended without a word"


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
    return _shell("LC_ALL=C pvecm status")


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


# --- the operation's key on the node ---------------------------------------------------------------

# The first-boot script puts it into authorized_keys2. The others are looked into because what stands
# in them can reach every node of the cluster: PVE moves authorized_keys to /etc/pve and links to it,
# and merges a plain file or a forgotten .org into the cluster's.
_KEY_FILES = """\
/root/.ssh/authorized_keys2 /root/.ssh/authorized_keys /root/.ssh/authorized_keys.org \
/etc/pve/priv/authorized_keys"""

# Beside the link's target, never over the link: PVE would merge the file that takes the link's place.
# Inside /etc/pve only a rename replaces a file at once.
_REMOVE_KEY = f"""\
umask 077
status=0
for file in {_KEY_FILES}; do
    file="${{PROVD_ROOT:-}}$file"
    grep -qsF -- "$1" "$file" || continue
    target="$(readlink -f -- "$file")" && [ -n "$target" ] || {{ status=1; continue; }}
    grep -vF -- "$1" "$target" >"$target.provd-new"
    [ "$?" -le 1 ] || {{ status=1; rm -f -- "$target.provd-new"; continue; }}
    case "$file" in
        *2 | *.org)
            if [ ! -s "$target.provd-new" ]; then
                rm -f -- "$target.provd-new" "$target" || status=1
                continue
            fi
            ;;
    esac
    mv -f -- "$target.provd-new" "$target" || status=1
done
exit "$status"
"""

# 2 from grep is a file that is there and cannot be read, e.g. a link into an /etc/pve that is not mounted.
_FIND_KEY = f"""\
for file in {_KEY_FILES}; do
    path="${{PROVD_ROOT:-}}$file"
    [ -e "$path" ] || [ -L "$path" ] || continue
    grep -qsF -- "$1" "$path"
    [ "$?" -eq 1 ] || echo "$file"
done
"""

_READINESS = """\
r="${PROVD_ROOT:-}"
ssh=/root/.ssh
shared=/etc/pve/priv/authorized_keys
if [ -e "$r$ssh/authorized_keys.org" ]; then
    echo "$ssh/authorized_keys.org is there: the join copies its keys to every node of the cluster"
fi
if [ -f "$r$ssh/authorized_keys" ] && [ ! -L "$r$ssh/authorized_keys" ] && [ -e "$r$shared" ]; then
    echo "$ssh/authorized_keys is no link to $shared: the join copies its keys to every node of the cluster"
fi
for file in "$ssh/authorized_keys" "$ssh/authorized_keys.org" "$shared"; do
    if grep -qsF -- "$1" "$r$file"; then
        echo "provd's temporary key is in $file, from where it can reach the cluster"
    fi
done
for file in /etc/corosync/authkey /etc/pve/corosync.conf; do
    if [ -e "$r$file" ]; then
        echo "$file is there, with which pvecm add refuses to join"
    fi
done
"""


def remove_key_command(key_body: str) -> str:
    """Take the key off the node, wherever it got to. Exit status 1: some file could not be changed.

    `key_body` is the base64 middle of the public line. Raises `Invalid`.
    """
    return _shell(_REMOVE_KEY, _key(key_body))


def find_key_command(key_body: str) -> str:
    """Print each file that has the key, or that cannot be looked into; nothing proves its absence."""
    return _shell(_FIND_KEY, _key(key_body))


def readiness_command(key_body: str) -> str:
    """Print a line for everything on the node that stands in the way of a clean join."""
    return _shell(_READINESS, _key(key_body))


def _key(body: str) -> str:
    if _KEY_BODY.fullmatch(body) is None:
        raise Invalid("this is not the base64 body of a public key", "key_body")
    return body
