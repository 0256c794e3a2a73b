"""For LANs where a proxy cannot do: how the router's own DHCP server sends machines to provd.

Some firmware does not listen to proxies (an HP laptop behind a UniFi router was one). Then the server
that gives the address must name the boot file: header field `siaddr` or option 66, and option 67; which
file depends on the client's architecture, option 93. iPXE is to be told from the firmware that loaded
it, or it is loaded for ever: by its option 175.

Text for human hands; nothing here is sent or run. Sources: dnsmasq(8); OpenWrt's dnsmasq.init;
dhcp-options(5) and dhcpd.conf(5) of ISC DHCP 4.4; the Kea Administrator Reference Manual 2.6, "Client
Classification"; pfSense's services_dhcp.php; OPNsense's forms of Kea and Dnsmasq; RouterOS' documentation
of DHCP, "Generic matcher" (7.4, matching-type 7.16).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network

from attrs import frozen

from provd.domain.architectures import FIRMWARES, Architecture, Via


@frozen(kw_only=True)
class BootServer:
    """What a DHCP server has to say."""

    address: IPv4Address
    """provd's, for TFTP."""
    subnet: IPv4Network
    files: Mapping[Architecture, str]
    """The boot files that there are. Harmless characters only, as file names in `pxe.loaders` are."""
    script_url: str
    """Of the iPXE script. iPXE replaces `${...}` in it."""
    loader_url: str = ""
    """The folder of the boot files, for UEFI's HTTP boot. Empty: there is none."""


@frozen(kw_only=True)
class Snippet:
    key: str
    router: str
    where: str
    """Where it goes, and what it cannot do."""
    text: str


@frozen
class Match:
    """One sort of client, and the file that it gets."""

    tag: str
    architectures: Sequence[int]
    file: str
    http: bool = False


def snippets(server: BootServer) -> Sequence[Snippet]:
    return [make(server) for make in MAKERS]


def matches(server: BootServer) -> Sequence[Match]:
    """Every sort of firmware that there is a file for, in the order of its numbers."""
    found: dict[str, Match] = {}
    for number, firmware in FIRMWARES.items():
        file = server.files.get(firmware.architecture)
        http = firmware.via is Via.HTTP
        if file is None or (http and not server.loader_url):
            continue
        tag = f"provd-{firmware.architecture}{'-http' * http}"
        known = found.get(tag)
        name = f"{server.loader_url.rstrip('/')}/{file}" if http else file
        found[tag] = Match(tag, [*(known.architectures if known else ()), number], name, http)
    return list(found.values())


# --- one for each ---------------------------------------------------------------------------------


def dnsmasq(server: BootServer) -> Snippet:
    lines = ["dhcp-match=set:provd-ipxe,175"]
    for match in matches(server):
        lines += [f"dhcp-match=set:{match.tag},option:client-arch,{number}" for number in match.architectures]
    lines.append(f"dhcp-boot=tag:provd-ipxe,{server.script_url},,{server.address}")
    for match in matches(server):
        lines.append(f"dhcp-boot=tag:!provd-ipxe,tag:{match.tag},{match.file},,{server.address}")
        if match.http:
            # Without it UEFI takes no offer for an answer to its HTTP boot.
            lines.append(f"dhcp-option-force=tag:!provd-ipxe,tag:{match.tag},60,HTTPClient")
    return Snippet(
        key="dnsmasq",
        router="dnsmasq, Pi-hole",
        where="In a file of its own, /etc/dnsmasq.d/provd.conf; then restart dnsmasq. Pi-hole 6 reads that "
        "folder only with misc.etc_dnsmasq_d switched on.",
        text="\n".join(lines) + "\n",
    )


def openwrt(server: BootServer) -> Snippet:
    lines = ["uci batch <<'EOF'", "set dhcp.provd_ipxe=match", "set dhcp.provd_ipxe.networkid='provd-ipxe'"]
    lines.append("set dhcp.provd_ipxe.match='175'")
    boots = [("provd_script", f"tag:provd-ipxe,{server.script_url}")]
    for match in matches(server):
        for number in match.architectures:
            section = f"dhcp.provd_arch_{number}"
            lines += [
                f"set {section}=match",
                f"set {section}.networkid='{match.tag}'",
                f"set {section}.match='option:client-arch,{number}'",
            ]
            if match.http:
                lines += [f"set {section}.force='1'", f"add_list {section}.dhcp_option='60,HTTPClient'"]
        name = match.tag.replace("-", "_")
        boots.append((f"{name}_file", f"tag:!provd-ipxe,tag:{match.tag},{match.file}"))
    for name, file in boots:
        lines += [
            f"set dhcp.{name}=boot",
            f"set dhcp.{name}.filename='{file}'",
            f"set dhcp.{name}.serveraddress='{server.address}'",
            f"set dhcp.{name}.servername='provd'",
        ]
    lines += ["commit dhcp", "EOF", "service dnsmasq restart"]
    return Snippet(
        key="openwrt",
        router="OpenWrt",
        where="In a shell on the router.",
        text="\n".join(lines) + "\n",
    )


def isc(server: BootServer) -> Snippet:
    lines = [
        "option client-arch code 93 = unsigned integer 16;",
        "option ipxe-features code 175 = string;",
        f"next-server {server.address};",
        "if exists ipxe-features {",
        f'  filename "{server.script_url}";',
    ]
    for match in matches(server):
        tests = " or ".join(
            f"option client-arch = {number >> 8:02x}:{number & 255:02x}" for number in match.architectures
        )
        lines += [f"}} elsif {tests} {{", f'  filename "{match.file}";']
        if match.http:
            lines.append('  option vendor-class-identifier "HTTPClient";')
    lines.append("}")
    return Snippet(
        key="isc",
        router="ISC dhcpd",
        where=f"In dhcpd.conf: the two lines `option … code …` at the top, the rest into the braces of "
        f"subnet {server.subnet.network_address} netmask {server.subnet.netmask}; then restart it.",
        text="\n".join(lines) + "\n",
    )


def kea(server: BootServer) -> Snippet:
    classes: list[Mapping[str, object]] = [
        {
            "name": "provd-ipxe",
            "test": "option[175].exists",
            "next-server": str(server.address),
            "boot-file-name": server.script_url,
        }
    ]
    for match in matches(server):
        numbers = " or ".join(f"option[93].hex == 0x{number:04x}" for number in match.architectures)
        one: dict[str, object] = {
            "name": match.tag,
            # Each test excludes the others: which of several classes would win depends on the version.
            "test": f"not member('provd-ipxe') and ({numbers})",
            "next-server": str(server.address),
            "boot-file-name": match.file,
        }
        if match.http:
            one["option-data"] = [
                {"name": "vendor-class-identifier", "data": "HTTPClient", "always-send": True}
            ]
        classes.append(one)
    return Snippet(
        key="kea",
        router="Kea",
        where="In kea-dhcp4.conf, as a member of Dhcp4 (add to client-classes if there are some already); "
        "then reload kea-dhcp4.",
        text='"client-classes": ' + json.dumps(classes, indent=2) + "\n",
    )


def pfsense(server: BootServer) -> Snippet:
    fields = {
        "Enable Network Booting": "yes",
        "Next Server": str(server.address),
        "Default BIOS File Name": server.files.get(Architecture.BIOS, ""),
        "UEFI 64 bit File Name": server.files.get(Architecture.X64, ""),
        "ARM 64 bit File Name": server.files.get(Architecture.ARM64, ""),
        "UEFI HTTPBoot URL": next((m.file for m in matches(server) if m.tag == "provd-x64-http"), ""),
    }
    return Snippet(
        key="pfsense",
        router="pfSense",
        where="Services › DHCP Server › the network › Network Booting (Display Advanced). It cannot tell "
        "iPXE from firmware: keep provd's own answers on as well (pxe.enabled), iPXE listens to them.",
        text=form(fields),
    )


def opnsense(server: BootServer) -> Snippet:
    fields = {
        "Next server": str(server.address),
        "TFTP server": str(server.address),
        "TFTP bootfile name": server.files.get(Architecture.X64, ""),
    }
    return Snippet(
        key="opnsense",
        router="OPNsense",
        where="Services › Kea DHCP › Kea DHCPv4 › Subnets › the network. It knows one file for all: this is "
        "the one for UEFI x64, and BIOS machines need Services › Dnsmasq DNS & DHCP instead, whose tags do "
        "what is shown here for dnsmasq. Keep provd's own answers on (pxe.enabled), iPXE listens to them.",
        text=form(fields),
    )


def unifi(server: BootServer) -> Snippet:
    fields = {
        "Network Boot": "on",
        "Server": str(server.address),
        "File name": server.files.get(Architecture.X64, ""),
        "TFTP Server": str(server.address),
    }
    return Snippet(
        key="unifi",
        router="UniFi",
        where="Settings › Networks › the network › DHCP › DHCP Service Management. It knows one file for "
        "all: this is the one for UEFI x64"
        + (
            f"; for BIOS machines it would be {server.files[Architecture.BIOS]}"
            if Architecture.BIOS in server.files
            else ""
        )
        + ". Keep provd's own answers on as well (pxe.enabled), iPXE listens to them.",
        text=form(fields),
    )


def mikrotik(server: BootServer) -> Snippet:
    # A dollar sign in double quotes would be a variable of RouterOS.
    script = server.script_url.replace("$", "\\$")
    options = [("provd-server", 66, str(server.address)), ("provd-script", 67, script)]
    sets = [("provd-ipxe", "provd-server,provd-script")]
    matchers = [("provd-ipxe", "77", "iPXE", "provd-ipxe")]
    for match in matches(server):
        options.append((f"{match.tag}-file", 67, match.file))
        names = ["provd-server", f"{match.tag}-file"]
        if match.http:
            options.append((f"{match.tag}-class", 60, "HTTPClient"))
            names.append(f"{match.tag}-class")
        sets.append((match.tag, ",".join(names)))
        matchers += [
            (f"{match.tag}-{number}", "93", f"0x{number:04x}", match.tag) for number in match.architectures
        ]
    lines = ["/ip dhcp-server option"]
    lines += [f"add name={name} code={code} value=\"s'{value}'\"" for name, code, value in options]
    lines.append("/ip dhcp-server option sets")
    lines += [f'add name={name} options="{names}"' for name, names in sets]
    lines.append("/ip dhcp-server matcher")
    lines += [
        f'add name={name} server=all code={code} value="{value}" option-set={option_set}'
        for name, code, value, option_set in matchers
    ]
    lines.append("/ip dhcp-server network")
    lines.append(f'set [find address="{server.subnet}"] next-server={server.address}')
    return Snippet(
        key="mikrotik",
        router="MikroTik RouterOS 7.4 and newer",
        where="In a terminal on the router. The matcher for iPXE stands first and must stay there.",
        text="\n".join(lines) + "\n",
    )


def form(fields: Mapping[str, str]) -> str:
    """Fields of a page, those that are to be filled in."""
    width = max(len(name) for name in fields)
    return "".join(f"{name:{width}}  {value}\n" for name, value in fields.items() if value)


MAKERS: Sequence[Callable[[BootServer], Snippet]] = (
    openwrt,
    dnsmasq,
    pfsense,
    opnsense,
    mikrotik,
    unifi,
    isc,
    kea,
)
