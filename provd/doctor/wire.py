"""What the answers to a test DISCOVER mean for machines that are to boot from provd.

The rules are those by which firmware chooses among offers (EDK2's PxeBcDhcp4.c, iPXE's dhcp.c).
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from urllib.parse import urlsplit

from provd.doctor.findings import Finding, ok, problem, warning
from provd.netboot.probe import Offer, Server

CHECK = "the wire"


def judge(
    servers: Sequence[Server], own: Collection[IPv4Address], subnet: IPv4Network, interface: str
) -> Iterator[Finding]:
    """`own` are this machine's addresses, `servers` everybody who answered by `interface`."""
    dhcp = [server for server in servers if any(offer.address for offer in server.offers)]
    if not dhcp:
        yield problem(
            CHECK,
            f"no DHCP server answered a test DISCOVER on {interface}: a machine would get no address, and "
            "without one no firmware comes as far as provd",
            "Switch on DHCP in the router for this network; look at the cable and the VLAN. A server that "
            "serves only the MACs it knows does not show here.",
        )
    for server in servers:
        yield from judge_one(server, own, subnet)
    if len(dhcp) > 1:
        yield warning(
            CHECK,
            f"{len(dhcp)} DHCP servers give out addresses: {', '.join(map(name_of, dhcp))}",
            "Keep one of them for this network, unless they are a pair that knows of each other.",
        )


def judge_one(server: Server, own: Collection[IPv4Address], subnet: IPv4Network) -> Iterator[Finding]:
    gives = [offer for offer in server.offers if offer.address]
    proxies = [offer for offer in server.offers if offer.proxy]
    if gives:
        yield from judge_dhcp(server, gives, own, subnet)
    if proxies:
        yield judge_proxy(server, proxies, own)
    if not gives and not proxies:
        yield warning(
            CHECK,
            f"{name_of(server)} sends offers with neither an address nor option 60, which no firmware takes",
            "Find out what it is, by its MAC address, and whether it is wanted.",
        )


def judge_dhcp(
    server: Server, gives: Sequence[Offer], own: Collection[IPv4Address], subnet: IPv4Network
) -> Iterator[Finding]:
    yield ok(CHECK, f"{name_of(server)} gives out addresses (now {listed(str(o.address) for o in gives)})")
    outside = [str(offer.address) for offer in gives if offer.address not in subnet]
    if outside:
        yield warning(
            CHECK,
            f"{name_of(server)} gives out {listed(outside)}, which is not in {subnet} (pxe.subnet)",
            "Correct pxe.subnet, or pxe.interface: this may be another network than you think.",
        )
    # UEFI takes such an offer for a boot server's, asks it on port 4011, and gives up (PXE-E18, PXE-E55).
    if any(o.vendor_class.startswith("PXEClient") and not o.vendor_options for o in gives):
        yield problem(
            CHECK,
            f"{name_of(server)} sends option 60 = PXEClient with its addresses: UEFI firmware then waits "
            "for a boot server on that machine, and never comes to provd",
            "Remove option 60 (vendor class identifier) from that DHCP server.",
        )
    ours = [offer for offer in gives if offer.boot_file and target_of(offer, server) in own]
    foreign = [offer for offer in gives if offer.boot_file and offer not in ours]
    if ours:
        yield ok(CHECK, f"{name_of(server)} itself sends machines to provd: {files_of(ours, server)}")
    if foreign:
        yield warning(
            CHECK,
            f"{name_of(server)} names a boot file of its own (options 66 and 67), "
            f"{files_of(foreign, server)}: firmware that prefers it never comes to provd",
            "Remove network boot, next-server and options 66 and 67 from that DHCP server, or have them "
            "name provd.",
        )
    names = {offer.server_name for offer in gives if offer.server_name and not offer.boot_file}
    if names - {str(address) for address in own}:
        yield warning(
            CHECK,
            f"{name_of(server)} names {listed(names)} as boot server (option 66), without a boot file",
            "Remove option 66 from that DHCP server, unless something else needs it.",
        )


def judge_proxy(server: Server, proxies: Sequence[Offer], own: Collection[IPv4Address]) -> Finding:
    files = files_of([offer for offer in proxies if offer.boot_file], server)
    what = f"hands out boot files as a proxy-DHCP server{f': {files}' if files else ''}"
    if server.source in own:
        return ok(CHECK, f"this machine, {name_of(server)}, {what}")
    return problem(
        CHECK,
        f"{name_of(server)} {what}; a machine boots from whichever of the two answers first",
        "Switch off network boot there (dnsmasq: its dhcp-range=…,proxy; also FOG, WDS, netboot.xyz, "
        "another provd), or keep it on another network.",
    )


def target_of(offer: Offer, server: Server) -> IPv4Address | None:
    """Where the boot file lies: what its URL says, else `siaddr`, else option 66, else who offers it.

    None where that is a name, which is not looked up here.
    """
    try:
        if "://" in offer.boot_file:
            return IPv4Address(urlsplit(offer.boot_file).hostname or "")
        if offer.next_server is not None:
            return offer.next_server
        return IPv4Address(offer.server_name) if offer.server_name else offer.server or server.source
    except ValueError:
        return None


def files_of(offers: Iterable[Offer], server: Server) -> str:
    return listed(
        offer.boot_file
        if "://" in offer.boot_file
        else f"{offer.boot_file} on {target_of(offer, server) or offer.server_name}"
        for offer in offers
    )


def name_of(server: Server) -> str:
    return f"{server.source} ({server.mac})" if server.mac else str(server.source)


def listed(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))
