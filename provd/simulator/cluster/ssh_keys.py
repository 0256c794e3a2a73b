"""SSH keys of members that somebody installed long ago, made within this process, because tests make many.

The RSA ones are as short as OpenSSH still takes. Slow to import, like `certificates`.
"""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from provd.simulator.cluster.locked import replace_file

Key = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def make_host_keys(directory: Path, comment: str) -> dict[str, str]:
    """`ssh_host_*_key` in `directory`; returns kind to whole `.pub` line."""
    keys: dict[str, Key] = {
        "ecdsa": ec.generate_private_key(ec.SECP256R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
        "rsa": rsa.generate_private_key(65537, 1024),
    }
    directory.mkdir(parents=True, exist_ok=True)
    return {kind: _write(directory / f"ssh_host_{kind}_key", key, comment) for kind, key in keys.items()}


def make_root_key(directory: Path, comment: str) -> str:
    """`id_rsa`, as Proxmox VE makes it for root; returns the public line."""
    return _write(directory / "id_rsa", rsa.generate_private_key(65537, 1024), comment)


def make_key(file: Path, comment: str) -> str:
    """An ed25519 key for somebody who logs in; returns the public line."""
    return _write(file, ed25519.Ed25519PrivateKey.generate(), comment)


def _write(file: Path, key: Key, comment: str) -> str:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    line = f"{public.decode()} {comment}"
    replace_file(file, private, 0o600)
    replace_file(file.with_name(f"{file.name}.pub"), f"{line}\n".encode())
    return line
