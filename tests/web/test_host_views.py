"""What the API says of a host beside its state: why it waits, how long that takes, how it went before."""

from datetime import timedelta

from attrs import evolve

from provd.domain.contacts import Contact, Hop
from provd.domain.lifecycle import State
from provd.domain.operations import Outcome
from provd.domain.secrets import Secret
from provd.store import hosts
from provd.web.app import create_app
from provd.web.host_views import all_hosts, lateness_of, one_host
from provd.web.parts import Parts
from web.looking import active, end, get, host_in, register


async def test_only_those_that_are_asked_for(parts: Parts) -> None:
    """Ids choose hosts, unknown ones are left out; what is no id, or too many, is refused by name."""
    for number in range(1, 4):
        await register(parts, f"pve{number}", number)
    found = await (await get(parts, "/api/hosts?id=3&id=1&id=99")).get_json()
    assert [host["id"] for host in found["hosts"]] == [1, 3]
    assert len((await (await get(parts, "/api/hosts")).get_json())["hosts"]) == 3
    for query in ("id=x", "id=-1", "&".join(["id=1"] * 101)):
        refused = await get(parts, f"/api/hosts?{query}")
        assert (refused.status_code, (await refused.get_json())["field"]) == (422, "id")


async def test_one_host_is_shown_as_among_all(parts: Parts) -> None:
    """The grid's view and the page's are the same, for every state."""
    for number, state in enumerate(State, start=1):
        await host_in(parts, state, f"pve{number}", number)
    for view in all_hosts(parts):
        host = next(one for one in parts.store.read(hosts.everyone) if one.id == view["id"])
        assert one_host(parts, host) == view


async def test_who_waits_for_a_human_says_why(parts: Parts) -> None:
    """A failure, a password that nobody has given, a lateness; the rest waits for nobody."""
    parts.passwords.standing = Secret("known")
    for number, state in enumerate(State, start=1):
        await host_in(parts, state, f"pve{number}", number)
    marked = {view["state"]: view["attention"] for view in all_hosts(parts)}
    assert {state: why for state, why in marked.items() if why} == {State.FAILED: "failed"}
    parts.passwords.standing = None
    marked = {view["state"]: view["attention"] for view in all_hosts(parts)}
    assert marked[State.JOINING] == "password"
    assert marked[State.READY] is None


async def test_a_late_host_says_why(parts: Parts) -> None:
    """Half its deadline gone and nothing heard: two reasons, the first with its time."""
    parts.passwords.standing = Secret("known")
    host = await host_in(parts, State.PXE_READY)
    path = f"/api/hosts/{host.id}/lateness"
    assert await (await get(parts, path)).get_json() == {"late": False, "reasons": []}
    parts.front_desk.heard(Contact(mac=host.mac, hop=Hop.LOADER, message="read snponly.efi by TFTP"))
    allowed = parts.waits.seconds_allowed(host, host.state)
    assert allowed is not None
    [operation] = active(parts)
    long_ago = evolve(host, state_since=host.state_since - timedelta(seconds=allowed))
    found = lateness_of(parts, long_ago, operation)
    assert "read snponly.efi by TFTP; its script was never fetched" in found.reasons[0].sentence
    await parts.fleet.change(lambda change: end(change, operation, Outcome.CANCELLED))
    assert await (await get(parts, path)).get_json() == {"late": False, "reasons": []}
    assert (await create_app(parts).test_client().get("/api/hosts/99/lateness")).status_code == 404


async def test_how_it_went_before(parts: Parts) -> None:
    """The last operations stand as a strip, the newest last, and what one has taken is usual for the next."""
    done = await host_in(parts, State.READY)
    running = await host_in(parts, State.INSTALLING, "pve2", 2)
    first, second = all_hosts(parts)
    assert (first["id"], second["id"]) == (done.id, running.id)
    assert [build["outcome"] for build in first["builds"]] == [Outcome.DONE]  # type: ignore[attr-defined]
    assert first["usual"] is None
    assert [build["outcome"] for build in second["builds"]] == [None]  # type: ignore[attr-defined]
    assert second["usual"].keys() == {  # type: ignore[attr-defined]
        "samples",
        "state_seconds",
        "before_seconds",
        "total_seconds",
    }
