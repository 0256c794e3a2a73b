"""What `pvecm add` says, in words that an operator can act on.

Its own texts (pve-cluster 8.0 to 9.1) are for people who know its inside: here each has a sentence,
and where something is wrong, the way out.
"""

import re

from provd.domain.documents import one_line

STEPS: tuple[tuple[str, str], ...] = (
    ("Establishing API connection", "logging in to the cluster"),
    ("Request addition of this node", "asking the cluster for a place"),
    ("Join request OK", "the cluster accepted, setting up the node"),
    ("waiting for quorum", "waiting for quorum (UDP 5405 to 5412 must pass between all nodes)"),
)
"""Beginnings of the last line, and what they mean. Other lines speak for themselves."""

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
        "the cluster has more than one corosync link; give the host its other addresses in its options, "
        '"links"',
    ),
    (
        r"link (\d+) specified for new node doesn't exist",
        'the cluster does not use corosync link {0}; take that address out of the host\'s options, "links"',
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

_PREFACE = ("Cluster join aborted!", "Check if node may join a cluster failed!", *SHELL_WORDS)
"""Last words that only say that something else went wrong."""

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
        return "; ".join([*reasons, *(f"pvecm said: {line}" for line in [failing_line(out, err)] if line)])
    refusal = _REFUSAL.search(out)
    if refusal is not None:
        return f"the cluster refused the node: {one_line(refusal[1])}"
    said = "" if err.strip() in SHELL_WORDS else err.strip()
    last = (said or out.strip()).splitlines()[-1:]
    if last and not said and last[0].startswith(ON_THE_WAY):
        return f"pvecm add was stopped half-way, after it had said {one_line(last[0])!r}"
    return f"pvecm add failed: {one_line(last[0])}" if last else "pvecm add ended without a word"


def failing_line(out: str, err: str) -> str:
    """The very line in which pvecm says what went wrong, quoted; empty where its words are about nothing."""
    lines = [line for line in out.splitlines() if re.match(r"\* |! |An error occurred", line)]
    said = [line for line in err.splitlines() if line.strip() and not line.startswith(_PREFACE)]
    return repr(one_line((said or lines)[-1], 160)) if said or lines else ""
