"""Where the keys in root's authorized_keys go: the normal way, and the ways by which they leak."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from provd.simulator.cluster import first_boot_updatecerts
from simulator.cluster_lab import EPHEMERAL, Lab, open_lab


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path) as lab:
        (lab.newcomer / "root/.ssh/authorized_keys").write_text(EPHEMERAL)  # as the installer: no newline
        yield lab


def home(lab: Lab) -> Path:
    return lab.newcomer / "root/.ssh/authorized_keys"


def own_key(lab: Lab) -> str:
    return (lab.newcomer / "root/.ssh/id_rsa.pub").read_text().rstrip("\n")


async def test_first_boot(lab: Lab) -> None:
    """The first start of pveproxy moves the file into /etc/pve, adds the node's key, and leaves a link."""
    first_boot_updatecerts(lab.newcomer)
    private = lab.newcomer / "etc/pve/priv/authorized_keys"
    assert home(lab).readlink() == private
    assert private.read_text() == f"{EPHEMERAL}\n{own_key(lab)}\n"
    assert private.stat().st_mode & 0o777 == 0o600
    assert not home(lab).with_name("authorized_keys.org").exists()
    assert (await lab.run(lab.newcomer, "pvecm", "updatecerts")).status == 0
    assert private.read_text() == f"{EPHEMERAL}\n{own_key(lab)}\n"


@pytest.mark.parametrize("converted", [False, True])
async def test_normal_join_forgets_the_key(lab: Lab, converted: bool) -> None:
    """Whether the first boot converted the file before or not, the cluster never gets the ephemeral key."""
    if converted:
        first_boot_updatecerts(lab.newcomer)
    assert (await lab.add()).err == ""
    assert home(lab).is_symlink()
    assert EPHEMERAL not in lab.cluster.authorized_keys()
    assert own_key(lab) in lab.cluster.authorized_keys()
    assert EPHEMERAL not in home(lab).read_text()


async def test_no_key_opens_while_pmxcfs_is_stopped(lab: Lab) -> None:
    """Between the stop and the start of pve-cluster the link leads nowhere, and the key is in the backup."""
    with lab.cluster.edit() as state:
        state.faults.drop_after_step = 13
    await lab.add()
    assert home(lab).is_symlink()
    assert not home(lab).exists()


async def test_regular_file_leaks(lab: Lab) -> None:
    """A regular file where the link was is taken for a backup, and the join makes its keys everybody's."""
    first_boot_updatecerts(lab.newcomer)
    home(lab).unlink()
    home(lab).write_text(EPHEMERAL)
    assert (await lab.add()).err == ""
    assert EPHEMERAL in lab.cluster.authorized_keys()
    assert EPHEMERAL in (lab.member / "etc/pve/priv/authorized_keys").read_text().splitlines()
    assert not home(lab).with_name("authorized_keys.org").exists()


async def test_left_over_backup_leaks(lab: Lab) -> None:
    """An authorized_keys.org that was there before is merged just so."""
    first_boot_updatecerts(lab.newcomer)
    home(lab).with_name("authorized_keys.org").write_text(EPHEMERAL)
    assert (await lab.add()).err == ""
    assert EPHEMERAL in lab.cluster.authorized_keys()


async def test_writing_after_the_join_leaks(lab: Lab) -> None:
    """After the join, the path in root's home is the cluster's file."""
    assert (await lab.add()).err == ""
    with home(lab).open("a") as file:
        file.write(f"{EPHEMERAL}\n")
    assert EPHEMERAL in lab.cluster.authorized_keys()


async def test_sed_in_place_leaks_at_the_next_updatecerts(lab: Lab) -> None:
    """Replacing the link by a file brings the file's keys into the cluster when pveproxy next starts."""
    assert (await lab.add()).err == ""
    home(lab).unlink()
    home(lab).write_text(EPHEMERAL)
    ended = await lab.run(lab.newcomer, "pvecm", "updatecerts", "--silent")
    assert (ended.out, ended.status) == ("", 0)
    assert home(lab).is_symlink()
    assert EPHEMERAL in lab.cluster.authorized_keys()


async def test_rsa_keys_are_merged_once_and_nothing_is_removed(lab: Lab) -> None:
    """The same RSA key is kept once; an ed25519 line, and every older line, stays as often as it is there."""
    shared = lab.cluster.pve / "priv/authorized_keys"
    old = "ssh-rsa AAAAB3old root@pve5"
    shared.write_text(f"{EPHEMERAL}\n{EPHEMERAL}\n{old}\n{old}\n")
    assert (await lab.add()).err == ""
    assert lab.cluster.authorized_keys() == [EPHEMERAL, EPHEMERAL, old, own_key(lab)]


async def test_second_file_is_left_alone(lab: Lab) -> None:
    """authorized_keys2 is the node's own, before and after."""
    second = home(lab).with_name("authorized_keys2")
    second.write_text(EPHEMERAL)
    assert (await lab.add()).err == ""
    assert second.read_text() == EPHEMERAL
    assert EPHEMERAL not in lab.cluster.authorized_keys()


async def test_root_login_is_permitted(lab: Lab) -> None:
    """A join makes sshd let root in, whatever was said before, and even if the join fails later."""
    config = lab.newcomer / "etc/ssh/sshd_config"
    config.parent.mkdir(parents=True)
    config.write_text("Port 22\nPermitRootLogin no\n")
    await lab.add(stdin=b"wrong\n")
    assert config.read_text() == "PermitRootLogin yes\nPort 22\n"
