"""The certificates of a simulated node: a cluster's own CA, and leaves signed by it.

Keys are P-256 where Proxmox makes RSA ones, because tests make many; nothing that a client may rely on
differs. Import this module where a certificate is made: it takes longer to load than most calls of `pvecm`
to run, and few of them make one.
"""

import datetime
import ipaddress
import uuid
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from provd.simulator.cluster.leaves import fingerprint_of
from provd.simulator.cluster.locked import replace_file


def create_authority(pve: Path, title: str = "PVE Cluster Manager CA") -> None:
    """Make `pve-root-ca.pem` and its key below `pve`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "Proxmox Virtual Environment"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, str(uuid.uuid4())),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, title),
        ]
    )
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    (pve / "priv").mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(pve / "priv" / "pve-root-ca.key", _pem(key), 0o600)
    replace_file(pve / "pve-root-ca.pem", _pem(certificate))


def issue_leaf(pve: Path, node: str, ip: str, *, days: float = 730) -> None:
    """Sign a new certificate for `node` with the authority in `pve`; an existing key is used again.

    That is what Proxmox does on a forced renewal, a rejoin included (pve-cluster, gen_pve_ssl_cert).
    """
    _write_leaf(pve, pve / "nodes" / node, "pve-ssl", node, ip, days)


def issue_foreign_leaf(pve: Path, node: str, ip: str) -> None:
    """Make a `pveproxy-ssl.pem` from an authority that belongs to no cluster, as ACME would."""
    authority = pve / "priv" / "acme"
    create_authority(authority, "Simulated public CA")
    _write_leaf(authority, pve / "nodes" / node, "pveproxy-ssl", node, ip)


def describe(path: Path) -> dict[str, object]:
    """A certificate file as GET /nodes/{node}/certificates/info lists it."""
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)  # this module makes no others
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    return {
        "filename": path.name,
        "fingerprint": fingerprint_of(certificate.public_bytes(serialization.Encoding.DER)),
        "subject": _slashed(certificate.subject),
        "issuer": _slashed(certificate.issuer),
        "notbefore": int(certificate.not_valid_before_utc.timestamp()),
        "notafter": int(certificate.not_valid_after_utc.timestamp()),
        "san": [str(name.value) for name in names],
        "pem": path.read_text(),
        "public-key-type": "id-ecPublicKey",
        "public-key-bits": key.key_size,
    }


def _write_leaf(authority: Path, directory: Path, stem: str, node: str, ip: str, days: float = 90) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    key_file = directory / f"{stem}.key"
    if key_file.exists():
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
    ca_key = serialization.load_pem_private_key((authority / "priv" / "pve-root-ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # this module makes no others
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    ca = x509.load_pem_x509_certificate((authority / "pve-root-ca.pem").read_bytes())
    names: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address(ip)),
        x509.DNSName(node),
        x509.DNSName(f"{node}.home.arpa"),
    ]
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(
            x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "PVE Cluster Node"),
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Proxmox Virtual Environment"),
                    x509.NameAttribute(NameOID.COMMON_NAME, f"{node}.home.arpa"),
                ]
            )
        )
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    replace_file(key_file, _pem(key), 0o600)
    replace_file(directory / f"{stem}.pem", _pem(certificate))


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(item: x509.Certificate | ec.EllipticCurvePrivateKey) -> bytes:
    if isinstance(item, x509.Certificate):
        return item.public_bytes(serialization.Encoding.PEM)
    return item.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _slashed(name: x509.Name) -> str:
    return "".join(f"/{part.rfc4514_attribute_name}={part.value!s}" for part in name)
