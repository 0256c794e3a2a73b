"""Brings up the network as /etc/network/interfaces has it: vmbr0 over one NIC, with a static address.

Reads what the installer wrote and nothing more general. Pinned names come from the `.link` files.
"""

import re
import subprocess
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path

from provd.simulator.vm.places import BUSYBOX

_LINKS = "usr/local/lib/systemd/network"


def start(root: Path) -> IPv4Interface | IPv6Interface:
    """Configure the links and return vmbr0's address. Raises ValueError, KeyError or CalledProcessError."""
    for mac, name in pinned_names(root).items():
        rename(mac, name)
    words = bridge_words((root / "etc/network/interfaces").read_text())
    port = words["bridge-ports"]
    interface = ip_interface(words["address"])
    ip("link", "set", "lo", "up")
    subprocess.run([BUSYBOX, "brctl", "addbr", "vmbr0"], check=True)
    subprocess.run([BUSYBOX, "brctl", "addif", "vmbr0", port], check=True)
    mac = Path(f"/sys/class/net/{port}/address").read_text().strip()
    ip("link", "set", "vmbr0", "address", mac)
    ip("link", "set", port, "up")
    ip("link", "set", "vmbr0", "up")
    ip("address", "add", str(interface), "dev", "vmbr0")
    ip("route", "add", "default", "via", words["gateway"], "dev", "vmbr0")
    return interface


def bridge_words(interfaces: str) -> dict[str, str]:
    """The options of vmbr0, each with its first word."""
    stanza = re.search(r"^iface vmbr0 .*\n((?:[ \t]+.*\n?)*)", interfaces, re.MULTILINE)
    lines = stanza[1].splitlines() if stanza else []
    return {words[0]: words[1] for line in lines if len(words := line.split()) > 1}


def pinned_names(root: Path) -> dict[str, str]:
    """MAC to the name that a `.link` file gives (systemd.link(5))."""
    texts = [path.read_text() for path in sorted((root / _LINKS).glob("*.link"))]
    found = [
        (re.search(r"^MACAddress=(\S+)", text, re.M), re.search(r"^Name=(\S+)", text, re.M)) for text in texts
    ]
    return {mac[1].lower(): name[1] for mac, name in found if mac and name}


def rename(mac: str, name: str) -> None:
    """Give the NIC with this MAC its pinned name."""
    for link in Path("/sys/class/net").iterdir():
        if (link / "device").exists() and (link / "address").read_text().strip().lower() == mac:
            if link.name != name:
                ip("link", "set", link.name, "name", name)
            return


def ip(*words: str) -> None:
    subprocess.run([BUSYBOX, "ip", *words], check=True)
