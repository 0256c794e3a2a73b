"""The addresses that machines are given for provd, and the cluster member that provd is to work with.

What is tried from here is a hint, not a proof: a machine may be behind another firewall.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address, ip_address
from urllib.parse import urlsplit

import trio

from provd.config import ProxmoxSection
from provd.doctor.findings import Finding, ok, problem, skipped, warning
from provd.http_client import HTTPError, InvalidURL, describe_failure, find_mismatch, open_client

HEALTH = "/healthz"

# Members of a cluster refuse each other's tickets from more than five minutes in the future (PVE::Ticket).
TOO_FAR_OFF, NOTICEABLY_OFF = 300.0, 30.0
"""Seconds."""


async def look_at_url(
    key: str, url: str, local: IPv4Address | None, *, running: bool, health: bool
) -> Sequence[Finding]:
    """Whether machines can reach `url`, which stands in the configuration as `key`.

    `local` is our address on their network: connections are made from there. `health`: it must be
    provd that answers; else any web server will do. `running`: somebody is known to be listening.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme]
    if host == "localhost" or (literal(host) and useless(host)):
        return [useless_host(key, url, host)]
    try:
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    except OSError as exc:
        what = f"{key}: the name {host} cannot be resolved here ({exc.strerror})"
        return [problem(key, what, f"Correct the name in the LAN's DNS, or write an address in {key}.")]
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if all(map(useless, addresses)):
        return [useless_host(key, url, f"{host}, here {', '.join(addresses)},")]
    findings = list(remarks(key, url, host, addresses))
    try:
        stream = await trio.open_tcp_stream(host, port, local_address=str(local) if local else None)
        await stream.aclose()
        async with open_client() as client:
            answer = await client.get(url.rstrip("/") + HEALTH)
    except (OSError, HTTPError, InvalidURL) as exc:
        origin = f" from {local}" if local else ""
        if not running:
            what = f"{url} does not answer, but no running provd is to be seen either"
            return [*findings, skipped(key, what, "Start provd, or look as root.")]
        return [
            *findings,
            problem(
                key,
                f"{url} cannot be reached{origin}: {describe_failure(exc)}",
                f"Compare {key} with the address that provd listens on, and look at the firewall (nft list "
                f"ruleset): TCP port {port} must be open to the machines.",
            ),
        ]
    if health and not is_provd(answer.status_code, answer.content):
        what = f"{url} is answered by something that is not provd (status {answer.status_code})"
        return [*findings, problem(key, what, f"Correct {key}, or the proxy in front of provd.")]
    return [*findings, ok(key, f"{url} answers")]


def remarks(key: str, url: str, host: str, addresses: Sequence[str]) -> Iterator[Finding]:
    if not literal(host):
        yield warning(
            key,
            f"{key} has a name, {host}, which is {', '.join(addresses)} here; whether firmware can resolve "
            "it depends on the DNS server that the LAN's DHCP names",
            f"An address instead of a name in {key} needs no DNS.",
        )
    if url.startswith("https:"):
        yield warning(
            key,
            f"{key} is https: iPXE and most firmware know few certificate authorities, and none of your own",
            f"Use http in {key} on the provisioning LAN, unless your iPXE was built with your CA in it.",
        )


def useless_host(key: str, url: str, host: str) -> Finding:
    what = f"{key} is {url}: {host} means each machine itself, not this one"
    return problem(key, what, f"Write this machine's address on the LAN in {key}.")


def literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def useless(address: str) -> bool:
    parsed = ip_address(address.partition("%")[0])
    return parsed.is_loopback or parsed.is_unspecified


def is_provd(status: int, body: bytes) -> bool:
    try:
        return status == 200 and json.loads(body[:1000]) == {"status": "ok"}
    except ValueError:
        return False


# --- the cluster ----------------------------------------------------------------------------------


async def look_at_member(section: ProxmoxSection, now: datetime) -> Sequence[Finding]:
    """Whether the existing member answers with its certificate, and what time it is there."""
    node = section.existing_node
    if node is None:
        return [skipped("cluster", "proxmox.existing_node is not set: hosts stand alone")]
    host = f"[{node}]" if node.version == 6 else str(node)
    try:
        async with open_client(fingerprint=section.join_fingerprint) as client:
            answer = await client.get(f"https://{host}:{section.api_port}/")
    except HTTPError as exc:
        what = f"the cluster's member {node} cannot be reached: {describe_failure(exc)}"
        if find_mismatch(exc):
            return [
                problem(
                    "cluster",
                    what,
                    "Compare proxmox.join_fingerprint with what `pvenode cert info` says there; it changes "
                    "whenever the certificate is renewed.",
                )
            ]
        return [
            problem("cluster", what, "Correct proxmox.existing_node, or start that node; nothing can join.")
        ]
    findings = [ok("cluster", f"the member {node} answers, with the certificate that was expected")]
    if (theirs := parse_date(answer.headers.get("Date", ""))) is None:
        return findings
    return [*findings, judge_clock((now - theirs).total_seconds(), str(node))]


def judge_clock(ahead: float, node: str) -> Finding:
    what = (
        f"this machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} that of {node}"
    )
    mend = "Synchronise both: timedatectl set-ntp true; on the node, systemctl restart chrony"
    if abs(ahead) > TOO_FAR_OFF:
        return problem("clock", what, mend)
    if abs(ahead) > NOTICEABLY_OFF:
        return warning("clock", what, mend)
    return ok("clock", f"this machine's clock agrees with that of {node}")


def parse_date(text: str) -> datetime | None:
    """An HTTP date with its zone, or None."""
    try:
        parsed = parsedate_to_datetime(text)
    except ValueError:
        return None
    return parsed if parsed.tzinfo is not None else None
