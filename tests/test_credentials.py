"""What the cluster is shown: read from files and from systemd, refused at the start where it is of no use."""

from pathlib import Path

import pytest

from provd import cli
from provd.config import CredentialsSection
from provd.credentials import read_cluster_credentials
from provd.domain.errors import ConfigError
from provd.domain.secrets import Secret
from provd.proxmox.api_token import ApiToken
from provd.remote.keys import KeyPair

UUID = "6650a1b2-0000-4000-8000-000000000001"
TOKEN = f"provd@pve!reads={UUID}"
PAIR = KeyPair(bytes(range(32)), "provd")


def section(**files: Path) -> CredentialsSection:
    return CredentialsSection(root_password_hash=Secret("$6$x"), **files)


def credential(file: Path, text: str) -> Path:
    file.touch(mode=0o600)
    file.write_text(text)
    return file


def test_nothing_is_given(tmp_path: Path) -> None:
    """Then there is nothing, and that is no error."""
    found = read_cluster_credentials(section(), tmp_path)
    assert (found.password, found.token, found.key) == (None, None, None)


def test_files_and_systemds_credentials(tmp_path: Path) -> None:
    """All three come from either place."""
    credential(tmp_path / "cluster-password", "secret\n")
    credential(tmp_path / "cluster-token", f"{TOKEN}\n")
    credential(tmp_path / "cluster-ssh-key", PAIR.private_openssh())
    named = section(
        cluster_password_file=tmp_path / "cluster-password",
        cluster_token_file=tmp_path / "cluster-token",
        cluster_ssh_key_file=tmp_path / "cluster-ssh-key",
    )
    for found in (read_cluster_credentials(named, None), read_cluster_credentials(section(), tmp_path)):
        assert found.password == Secret("secret")
        assert found.token == ApiToken("provd@pve!reads", Secret(UUID))
        assert found.token.header == f"PVEAPIToken={TOKEN}"
        assert found.key == PAIR
        assert UUID not in repr(found)
        assert "seed" not in repr(found)


@pytest.mark.parametrize(
    "text",
    [
        "secret",
        UUID,
        f"provd@pve={UUID}",
        f"provd!reads={UUID}",
        f"provd@pve!reads {UUID}",
        f"provd@pve!={UUID}",
        "provd@pve!reads=",
        f"PVEAPIToken={TOKEN}",
        f"provd@pve!reads={UUID} and more",
    ],
)
def test_what_is_no_token(tmp_path: Path, text: str) -> None:
    """The sentence has the file and the form, and not the text."""
    file = credential(tmp_path / "token", text)
    with pytest.raises(ConfigError, match=r"token: this is no API token.*USER@REALM!ID=SECRET") as caught:
        read_cluster_credentials(section(cluster_token_file=file), None)
    assert UUID not in str(caught.value)


def test_what_is_no_key(tmp_path: Path) -> None:
    """The sentence has the file, and the command that makes one."""
    file = credential(tmp_path / "key", "hello\nworld\n")
    with pytest.raises(ConfigError, match=r"key: this is no private key of OpenSSH.*ssh-keygen -t ed25519"):
        read_cluster_credentials(section(cluster_ssh_key_file=file), None)
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="cluster-ssh-key"):
        read_cluster_credentials(section(cluster_ssh_key_file=file), None)


def test_check_config_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is of no use is told before the daemon starts, with the exit code for that."""
    examples = Path(__file__).parents[1] / "deploy" / "examples"
    for name in ("provisioning.yaml", "server-types.yaml"):
        (tmp_path / name).write_text((examples / name).read_text())
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "given"))
    (tmp_path / "given").mkdir()
    words = ["check-config", "--config", str(tmp_path / "provisioning.yaml")]
    assert cli.main(words) == 0
    credential(tmp_path / "given" / "cluster-token", "nonsense")
    assert cli.main(words) == 2
    assert "no API token" in capsys.readouterr().err
