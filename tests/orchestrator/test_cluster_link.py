"""The way to a cluster of simulated members over real HTTPS: any live one serves, if it is pinned."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio
from attrs import define, evolve

from provd.config import ProxmoxSection
from provd.domain.errors import ClusterFailed
from provd.domain.secrets import Secret
from provd.orchestrator.bell import Bell
from provd.orchestrator.fleet import Fleet
from provd.orchestrator.membership.link import ClusterLink
from provd.proxmox.api_token import ApiToken
from provd.proxmox.cluster import LoginRefused, Member
from provd.simulator.cluster import Cluster, leaves
from provd.simulator.cluster.api import serve_api
from provd.simulator.cluster.state import Token
from provd.store import activity, members
from provd.store.database import Store, now, open_store

PASSWORD = Secret("root's own password")
TOKEN = ApiToken.parse(Secret("provd@pve!reads=6650a1b2-0000-4000-8000-000000000001"))
WRONG = ":".join(["AB"] * 32)
NET = "127.78.3"


@define
class Lab:
    cluster: Cluster
    store: Store
    link: ClusterLink
    open_link: Callable[..., ClusterLink]
    nursery: trio.Nursery

    async def serve(self, name: str) -> None:
        await self.nursery.start(serve_api, self.cluster, name)

    async def served_by(self, *, avoid: tuple[str, ...] = ()) -> str:
        async with self.link.open(PASSWORD, avoid=avoid) as member:
            return member.node_name

    def remembered(self) -> dict[str, tuple[str, str]]:
        return {one.name: (one.address, one.fingerprint) for one in self.link.remembered()}

    def told(self) -> list[str]:
        return [line.message for line in self.store.read(lambda db: activity.after(db, 0, 100))]


@asynccontextmanager
async def open_lab(directory: Path, size: int = 3) -> AsyncIterator[Lab]:
    """pve1, which is the configured one, and its companions, all of which answer."""
    cluster = Cluster.create(directory / "cluster", ip=f"{NET}.1", root_password=PASSWORD.reveal())
    for number in range(2, size + 1):
        cluster.add_member(f"pve{number}", f"{NET}.{number}", root_password=PASSWORD.reveal())
    with cluster.edit() as state:
        state.timings.auth_delay = 0
        state.tokens[TOKEN.name] = Token(secret=TOKEN.secret.reveal(), privs={"/": ["Sys.Audit"]})
    with open_store(directory / "provd.db") as store, trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_api, cluster, "pve1")
            section = ProxmoxSection(
                existing_node=ip_address(f"{NET}.1"),
                join_fingerprint=cluster.fingerprint("pve1"),
                api_port=cluster.read().api_port,
            )

            def open_link(token: ApiToken | None = None, **changes: object) -> ClusterLink:
                return ClusterLink(
                    evolve(section, **changes), store, Fleet(store, Bell()), token, standing=None
                )

            lab = Lab(cluster, store, open_link(), open_link, nursery)
            for number in range(2, size + 1):
                await lab.serve(f"pve{number}")
            yield lab
            nursery.cancel_scope.cancel(reason="the test is over")


# --- whom to ask ----------------------------------------------------------------------------------


async def test_the_configured_one_is_asked_first_and_tells_of_the_others(tmp_path: Path) -> None:
    """After one visit every member is remembered with its address and certificate."""
    async with open_lab(tmp_path) as lab:
        assert await lab.served_by() == "pve1"
        assert lab.remembered() == {
            f"pve{n}": (f"{NET}.{n}", lab.cluster.fingerprint(f"pve{n}")) for n in (1, 2, 3)
        }


async def test_another_serves_while_the_configured_one_is_down(tmp_path: Path) -> None:
    """One visit is enough to do without the configured member afterwards."""
    async with open_lab(tmp_path) as lab:
        await lab.served_by()
        with lab.cluster.edit() as state:
            state.faults.peer_down = ["pve1"]
            state.nodes["pve1"].online = False
        assert await lab.served_by() in ("pve2", "pve3")
        assert await lab.served_by(avoid=("PVE2",)) == "pve3"


async def test_a_member_to_be_avoided_is_not_asked(tmp_path: Path) -> None:
    """Not the configured one either, by its name, whether that was known before or is learned by asking."""
    async with open_lab(tmp_path) as lab:
        with pytest.raises(ClusterFailed, match="no member of the cluster is known besides pve1"):
            await lab.served_by(avoid=("pve1",))
        await lab.served_by()
        assert await lab.served_by(avoid=("pve1",)) in ("pve2", "pve3")


async def test_nobody_answers(tmp_path: Path) -> None:
    """The sentence has every member that was asked."""
    async with open_lab(tmp_path) as lab:
        await lab.served_by()
        with lab.cluster.edit() as state:
            state.faults.peer_down = ["pve1", "pve2", "pve3"]
        with pytest.raises(ClusterFailed) as caught:
            await lab.served_by()
        assert all(f"{NET}.{number}:" in str(caught.value) for number in (1, 2, 3))


async def test_a_member_that_hangs_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that takes the request and says nothing does not keep the others from serving."""
    monkeypatch.setattr("provd.orchestrator.membership.link.PATIENCE_SECONDS", 1)
    async with open_lab(tmp_path) as lab:
        await lab.served_by()
        leaf = leaves.served_leaf(lab.cluster.pve, "pve1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(leaf, leaf.with_suffix(".key"))
        asked = trio.Event()

        async def hang(stream: trio.SSLStream[trio.SocketStream]) -> None:
            await stream.receive_some()
            asked.set()
            await trio.sleep_forever()

        port = lab.cluster.read().api_port
        await lab.nursery.start(
            partial(trio.serve_ssl_over_tcp, hang, port, context, host=f"{NET}.9", https_compatible=True)
        )
        link = lab.open_link(existing_node=ip_address(f"{NET}.9"))
        async with link.open(PASSWORD) as member:
            assert member.node_name == "pve1"  # under the address that was remembered
        assert asked.is_set()


async def test_one_that_was_cut_off_still_serves(tmp_path: Path) -> None:
    """Where there is no better one; what it sees is for the caller to judge."""
    async with open_lab(tmp_path, size=1) as lab:
        with lab.cluster.edit() as state:
            state.faults.peer_no_quorum = True
        async with lab.link.open(PASSWORD) as member:
            assert not (await member.status()).quorate


async def test_without_a_cluster(tmp_path: Path) -> None:
    """Nobody is asked, and the sentence names the key."""
    async with open_lab(tmp_path, size=1) as lab:
        alone = lab.open_link(existing_node=None, join_fingerprint="")
        with pytest.raises(ClusterFailed, match=r"proxmox\.existing_node is not set"):
            async with alone.open(PASSWORD):
                raise AssertionError("not reached")


# --- logging in -----------------------------------------------------------------------------------


async def test_a_token_reads(tmp_path: Path) -> None:
    """Without a password the token serves, and what takes root is refused with its status."""
    async with open_lab(tmp_path) as lab, lab.open_link(TOKEN).open() as member:
        assert (await member.status()).quorate
        with pytest.raises(ClusterFailed, match="403"):
            await member.delete_node("pve3")
    assert "pve3" in lab.cluster.read().nodes


async def test_without_any_login(tmp_path: Path) -> None:
    """The sentence says what to configure."""
    async with open_lab(tmp_path, size=1) as lab:
        with pytest.raises(ClusterFailed, match="cluster_token_file"):
            async with lab.link.open():
                raise AssertionError("not reached")


async def test_each_member_has_a_root_of_its_own(tmp_path: Path) -> None:
    """A password that the configured member refuses may be another's; one that all refuse is no good."""
    async with open_lab(tmp_path) as lab:
        await lab.served_by()
        with lab.cluster.edit() as state:
            state.nodes["pve1"].root_password = "another one"
        assert await lab.served_by() in ("pve2", "pve3")
        with pytest.raises(LoginRefused, match="password"):
            async with lab.link.open(Secret("a guess")):
                raise AssertionError("not reached")
        other = lab.open_link(ApiToken.parse(Secret("provd@pve!other=6650a1b2-0000-4000-8000-000000000001")))
        with pytest.raises(LoginRefused, match=r"provd@pve!other.*cluster_token_file"):
            async with other.open():
                raise AssertionError("not reached")


async def test_a_member_is_struck_out(tmp_path: Path) -> None:
    """With root's password, by any other member; afterwards it is forgotten."""
    async with open_lab(tmp_path) as lab:
        async with lab.link.open(PASSWORD, avoid=["pve3"]) as member:
            await member.delete_node("pve3")
        assert "pve3" not in lab.cluster.read().nodes
        await lab.served_by()
        assert sorted(lab.remembered()) == ["pve1", "pve2"]


async def refused(member: Member, name: str) -> str:
    with pytest.raises(ClusterFailed) as caught:
        await member.delete_node(name)
    return str(caught.value)


async def test_a_member_that_cannot_be_struck_out(tmp_path: Path) -> None:
    """Itself, a stranger, or anybody without quorum: the member's words, and nothing is changed."""
    async with open_lab(tmp_path) as lab, lab.link.open(PASSWORD) as member:
        assert "Cannot delete myself" in await refused(member, "pve1")
        assert "not a known host" in await refused(member, "pve9")
        assert "answered 501" in await refused(member, "../pve2")
        with lab.cluster.edit() as state:
            state.faults.peer_no_quorum = True
        assert "no quorum" in await refused(member, "pve3")
        assert sorted(lab.cluster.read().nodes) == ["pve1", "pve2", "pve3"]


# --- certificates ---------------------------------------------------------------------------------


async def test_an_outdated_fingerprint_in_the_configuration(tmp_path: Path) -> None:
    """Another member vouches for the new certificate; the warning has both values and the key, once."""
    async with open_lab(tmp_path) as lab:
        await lab.served_by()
        old = lab.cluster.fingerprint("pve1")
        with lab.cluster.edit() as state:
            state.faults.peer_other_cert = ["pve1"]
        new = lab.cluster.fingerprint("pve1")
        first = await lab.served_by()
        assert first in ("pve2", "pve3")
        [warning] = lab.told()
        assert all(word in warning for word in (old, new, "proxmox.join_fingerprint", f"{first} was asked"))

        assert lab.remembered()["pve1"] == (f"{NET}.1", new)
        await lab.served_by()
        assert len(lab.told()) == 1
        assert await lab.served_by(avoid=("pve2", "pve3")) == "pve1"  # vouched for by the others


async def test_nobody_vouches(tmp_path: Path) -> None:
    """With no other member to ask, a changed certificate is an error that has both values and the key."""
    async with open_lab(tmp_path, size=1) as lab:
        old = lab.cluster.fingerprint("pve1")
        with lab.cluster.edit() as state:
            state.faults.peer_other_cert = ["pve1"]
        with pytest.raises(ClusterFailed, match=r"proxmox\.join_fingerprint") as caught:
            await lab.served_by()
        assert old in str(caught.value)
        assert lab.cluster.fingerprint("pve1") in str(caught.value)


async def test_a_companion_renewed_its_certificate(tmp_path: Path) -> None:
    """What a believed member says of another replaces what was remembered, without a word."""
    async with open_lab(tmp_path) as lab:
        await lab.served_by()
        with lab.cluster.edit() as state:
            state.faults.peer_other_cert = ["pve2"]
        await lab.served_by()
        assert lab.remembered()["pve2"][1] == lab.cluster.fingerprint("pve2")
        assert lab.told() == []
        assert await lab.served_by(avoid=("pve1", "pve3")) == "pve2"


# --- memory ---------------------------------------------------------------------------------------


async def test_pinned_host_keys_outlive_a_visit(tmp_path: Path) -> None:
    """What is remembered anew keeps the host keys, and a quiet visit writes nothing."""
    async with open_lab(tmp_path) as lab:
        await lab.served_by()
        await lab.store.write(lambda db: members.pin_host_keys(db, "pve2", ["ssh-ed25519 AAAA"]))
        before = lab.link.remembered()
        await lab.served_by()
        assert lab.link.remembered() == before

        long_ago = [evolve(one, seen_at=now() - timedelta(hours=1)) for one in before]
        await lab.store.write(lambda db: members.remember(db, long_ago))
        await lab.served_by()
        after = {one.name: one for one in lab.link.remembered()}
        assert all(now() - one.seen_at < timedelta(minutes=1) for one in after.values())
        assert after["pve2"].ssh_host_keys == ("ssh-ed25519 AAAA",)


async def test_another_cluster_is_configured(tmp_path: Path) -> None:
    """Members of the former cluster do not serve for the new one, and are forgotten when that answers."""
    async with open_lab(tmp_path / "new", size=2) as lab:
        stranger = members.RememberedMember(
            name="pve2", address="127.78.9.9", fingerprint=WRONG, seen_at=now()
        )
        await lab.store.write(lambda db: members.remember(db, [stranger, evolve(stranger, name="old")]))
        await lab.store.write(lambda db: members.pin_host_keys(db, "pve2", ["ssh-ed25519 AAAA"]))
        assert lab.link.remembered() == ()
        await lab.served_by()
        assert sorted(lab.remembered()) == ["pve1", "pve2"]
        assert all(one.ssh_host_keys == () for one in lab.link.remembered())


async def test_the_configured_one_was_struck_out(tmp_path: Path) -> None:
    """The others go on serving: that is the middle of its rebuild."""
    async with open_lab(tmp_path) as lab:
        await lab.served_by()
        async with lab.link.open(PASSWORD, avoid=["pve1"]) as member:
            await member.delete_node("pve1")
        for _ in range(2):
            assert await lab.served_by(avoid=("pve1",)) in ("pve2", "pve3")
        assert await lab.served_by() in ("pve2", "pve3")
