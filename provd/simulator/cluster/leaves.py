"""Which certificate a node presents, and its fingerprint: the cheap questions, asked by every process.

Making certificates needs a library that takes long to import; that is `certificates.py`.
"""

import hashlib
import ssl
from pathlib import Path


def fingerprint_of(der: bytes) -> str:
    """SHA-256 as Proxmox writes it: 32 upper-case octets with colons, 95 characters."""
    return hashlib.sha256(der).digest().hex(":").upper()


def served_leaf(pve: Path, node: str) -> Path:
    """The certificate pveproxy presents: a custom one goes before the cluster's."""
    custom = pve / "nodes" / node / "pveproxy-ssl.pem"
    return custom if custom.exists() else custom.with_name("pve-ssl.pem")


def served_fingerprint(pve: Path, node: str) -> str:
    """Raise FileNotFoundError for a node without a certificate."""
    return fingerprint_of(ssl.PEM_cert_to_DER_cert(served_leaf(pve, node).read_text()))
