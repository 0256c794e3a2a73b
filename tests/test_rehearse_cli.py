"""`provd rehearse` as a command: beside a database, against simulated members, and nothing started."""

import json
import os
import sys
from pathlib import Path

import trio

from provd import rehearse_cli
from provd.domain.hosts import HostId
from provd.domain.rehearsal import Check, Rehearsal, Result
from provd.simulator.cluster.state import Guest
from provd.store import operations
from provd.store.database import now
from web.test_rehearsal import world


async def run(directory: Path, *words: str) -> tuple[int, str, str]:
    done = await trio.run_process(
        [
            *(sys.executable, "-W", "error", "-m", "provd", "rehearse"),
            *(*words, "--config", directory / "provisioning.yaml"),
        ],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env={**os.environ, "STATE_DIRECTORY": str(directory / "state")},
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_what_it_prints(tmp_path: Path) -> None:
    """0 for yes, 1 for no, words for people and JSON for programs; a name that is none is told."""
    async with world(tmp_path) as lab:
        host = await lab.register("pve3")
        code, out, err = await run(tmp_path, "pve3")
        assert (code, err) == (0, "")
        assert "✓ guests" in out
        assert "(2 of 3 votes stay, quorum 2)" in out
        assert out.rstrip().splitlines()[-1].startswith("Yes, but: pve3 can be rebuilt")

        with lab.cluster.edit() as state:
            state.guests.append(Guest(vmid=101, node="pve3"))
        code, out, err = await run(tmp_path, "pve3", "--json", "--drain")
        document = json.loads(out)
        assert (code, err, document["verdict"], document["drain"]) == (1, "", "no", True)
        assert {"guests"} == {one["name"] for one in document["checks"] if one["result"] == "no"}
        assert lab.untouched(host)
        assert not lab.parts.store.read(operations.active)

        code, out, err = await run(tmp_path, "pve7")
        assert (code, out) == (1, "")
        assert err == "provd: there is no host 'pve7'; there are: pve3\n"


def test_each_result_has_its_symbol() -> None:
    """Long sentences are folded under their own beginning; without colours where nobody sees them."""
    checks = tuple(
        Check(name=str(result), result=result, what="word " * 30, mend="do this", evidence="seen")
        for result in Result
    )
    rehearsal = Rehearsal(host_id=HostId(1), hostname="pve3", at=now(), checks=checks)
    plain = list(rehearse_cli.lines(rehearsal, 60, colour=False))
    assert [line[0] for line in plain if line[:1] in "✓!?✗" and line] == list("✓!?✗")
    assert all(len(line) <= 60 for text in plain for line in text.splitlines())
    assert "\x1b[31m✗" in "".join(rehearse_cli.lines(rehearsal, 60, colour=True))
    assert plain[-1].startswith("No: pve3 should not be rebuilt now, because of unknown, no")
