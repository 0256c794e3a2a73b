"""What provd shows to the cluster: read from the operator's files or systemd's credentials, at the start."""

from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from provd.config import CredentialsSection, read_credential
from provd.domain.errors import ConfigError, Invalid
from provd.domain.secrets import Secret
from provd.proxmox.api_token import ApiToken
from provd.remote.keys import KeyPair
from provd.remote.private_key import parse_private_key


@frozen(kw_only=True)
class ClusterCredentials:
    """Each None where the operator gave none."""

    password: Secret | None = None
    """Of root@pam."""
    token: ApiToken | None = None
    key: KeyPair | None = None
    """For SSH as root."""


def read_cluster_credentials(section: CredentialsSection, directory: Path | None) -> ClusterCredentials:
    """`directory` is systemd's. Raise `ConfigError` for a file that is named and of no use."""
    return ClusterCredentials(
        password=read_credential(section.cluster_password_file, "cluster-password", directory),
        token=read_token(section, directory),
        key=read_key(section, directory),
    )


def read_token(section: CredentialsSection, directory: Path | None) -> ApiToken | None:
    text = read_credential(section.cluster_token_file, "cluster-token", directory)
    try:
        return ApiToken.parse(text) if text is not None else None
    except Invalid as exc:
        raise ConfigError(f"{section.cluster_token_file or 'cluster-token'}: this {exc}") from exc


def read_key(section: CredentialsSection, directory: Path | None) -> KeyPair | None:
    text = read_credential(section.cluster_ssh_key_file, "cluster-ssh-key", directory, lines=True)
    try:
        return parse_private_key(text) if text is not None else None
    except Invalid as exc:
        raise ConfigError(f"{section.cluster_ssh_key_file or 'cluster-ssh-key'}: this {exc}") from exc


def credentials_dir(environ: Mapping[str, str]) -> Path | None:
    """Where systemd puts what LoadCredential= names."""
    directory = environ.get("CREDENTIALS_DIRECTORY")
    return Path(directory) if directory else None
