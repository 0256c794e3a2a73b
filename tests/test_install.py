"""deploy/install.sh, run into a folder: no root, no network, nothing outside."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
SCRIPT = CHECKOUT / "deploy" / "install.sh"


def install(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHON": sys.executable},
        cwd="/",
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with provd installed in it, once for all tests here."""
    root = tmp_path_factory.mktemp("root")
    result = install("--root", str(root), "--no-deps")
    assert result.returncode == 0, result.stderr
    assert "systemctl enable --now provd" in result.stdout
    return root


def test_everything_is_where_the_unit_looks(root: Path) -> None:
    """Program, configuration and unit lie where systemd and provd expect them."""
    assert os.access(root / "usr/local/bin/provd", os.X_OK)
    assert (root / "etc/systemd/system/provd.service").read_text() == (
        CHECKOUT / "systemd" / "provd.service"
    ).read_text()
    assert (root / "etc/provd/provisioning.yaml").stat().st_mode & 0o777 == 0o640
    assert (root / "etc/provd").stat().st_mode & 0o777 == 0o750
    assert (root / "opt/provd/lib/static").is_dir()


def test_the_installed_copy_runs(root: Path) -> None:
    """The copied package, not the checkout, loads the installed configuration."""
    program = (
        "import sys, provd.config as c; from pathlib import Path; print(c.__file__);"
        "c.load_config(Path(sys.argv[1]), {})"
    )
    library = root / "opt/provd/lib"
    result = subprocess.run(
        [sys.executable, "-P", "-c", program, str(root / "etc/provd/provisioning.yaml")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(library)},
        cwd="/",
    )
    assert result.stdout.strip() == str(library / "provd/config.py")


def test_the_venv_finds_the_library(root: Path) -> None:
    """The installed interpreter looks into /opt/provd/lib, and the command uses that interpreter."""
    (pth,) = (root / "opt/provd/venv").glob("lib/python3*/site-packages/provd.pth")
    assert pth.read_text() == "/opt/provd/lib\n"
    assert "exec /opt/provd/venv/bin/python -P -m provd" in (root / "usr/local/bin/provd").read_text()


def test_an_update_keeps_the_configuration_and_replaces_the_program(root: Path) -> None:
    """A second run changes no word of the operator's files, and leaves no file of an older version."""
    own = root / "etc/provd/provisioning.yaml"
    before = own.read_text()
    own.write_text("# mine\n" + before)
    leftover = root / "opt/provd/lib/provd/removed_long_ago.py"
    leftover.write_text("")
    result = install("--update", "--root", str(root), "--no-deps")
    assert result.returncode == 0, result.stderr
    assert own.read_text() == "# mine\n" + before
    assert not leftover.exists()
    assert sorted(path.name for path in (root / "opt/provd").iterdir()) == ["lib", "venv"]
    assert "Edit" not in result.stdout


def test_an_unknown_option_is_refused(tmp_path: Path) -> None:
    """A mistyped option installs nothing and shows the usage."""
    result = install("--root", str(tmp_path), "--updaet")
    assert result.returncode == 64
    assert "--update" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_old_python_is_refused(tmp_path: Path) -> None:
    """Without a fit Python nothing is touched, and the message says what is wanted."""
    result = subprocess.run(
        ["sh", str(SCRIPT), "--root", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHON": "/bin/false"},
    )
    assert result.returncode == 1
    assert "3.11" in result.stderr
    assert list(tmp_path.iterdir()) == []
