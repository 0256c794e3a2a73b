"""Other people's TFTP clients, and networks that lose, double, delay and mix up what passes."""

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio

from netboot.tftp_lab import FILES, Client, Weather, bad_network, open_server
from provd.netboot.tftp_transfer import Outcome

PATIENCE = 60.0

CLIENTS: dict[str, Callable[[str, int, str, str], Sequence[str]]] = {
    "curl": lambda host, port, name, to: ["curl", "-sf", f"tftp://{host}:{port}/{name}", "-o", to],
    "curl-blksize": lambda host, port, name, to: [
        *("curl", "-sf", "--tftp-blksize", "1400", f"tftp://{host}:{port}/{name}", "-o", to),
    ],
    "curl-no-options": lambda host, port, name, to: [
        *("curl", "-sf", "--tftp-no-options", f"tftp://{host}:{port}/{name}", "-o", to),
    ],
    "tftp": lambda host, port, name, to: ["tftp", "-m", "binary", host, str(port), "-c", "get", name, to],
    "atftp": lambda host, port, name, to: ["atftp", "-g", "-r", name, "-l", to, host, str(port)],
    "atftp-options": lambda host, port, name, to: [
        *("atftp", "--option", "blksize 1428", "--option", "tsize", "--option", "windowsize 8"),
        *("-g", "-r", name, "-l", to, host, str(port)),
    ],
    "busybox": lambda host, port, name, to: ["busybox", "tftp", "-g", "-r", name, "-l", to, host, str(port)],
    "busybox-blksize": lambda host, port, name, to: [
        *("busybox", "tftp", "-b", "1400", "-g", "-r", name, "-l", to, host, str(port)),
    ],
}


@pytest.fixture(params=sorted(CLIENTS))
def client(request: pytest.FixtureRequest) -> Callable[[str, int, str, str], Sequence[str]]:
    found = CLIENTS[request.param]
    program = found("", 0, "", "")[0]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed here")
    return found


async def test_real_clients(client: Callable[[str, int, str, str], Sequence[str]], tmp_path: Path) -> None:
    """Whoever speaks TFTP has the file as it is, and it is seen as read."""
    async with open_server() as server:
        for number, name in enumerate(("loader.efi", "exact", "small"), 1):
            command = client(*server.address, name, str(tmp_path / name))
            with trio.fail_after(PATIENCE):
                await trio.run_process(command, capture_stdout=True, capture_stderr=True)
                reads = await server.wait_reads(number)
            assert (tmp_path / name).read_bytes() == FILES[name]
            assert (reads[-1].name, reads[-1].outcome) == (name, Outcome.DONE)


async def test_real_clients_and_no_file(
    client: Callable[[str, int, str, str], Sequence[str]], tmp_path: Path
) -> None:
    """Whoever asks for what is not there is told so at once."""
    async with open_server() as server:
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(
                client(*server.address, "nowhere", str(tmp_path / "x")),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        said = (done.stdout + done.stderr).lower()
        assert done.returncode != 0 or b"not found" in said
        assert server.reads == []


async def test_text_by_a_real_client(tmp_path: Path) -> None:
    """A text that is asked for as netascii is the same text on the other side."""
    if shutil.which("tftp") is None:
        pytest.skip("tftp is not installed here")
    async with open_server() as server:
        server.files.files["text"] = b"one\ntwo\r\nthree\rfour\n" * 100
        host, port = server.address
        with trio.fail_after(PATIENCE):
            await trio.run_process(
                ["tftp", "-m", "ascii", host, str(port), "-c", "get", "text", str(tmp_path / "text")],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
    assert (tmp_path / "text").read_bytes() == b"one\ntwo\r\nthree\rfour\n" * 100


@pytest.mark.parametrize(
    "weather",
    [
        Weather(loss=0.05),
        Weather(duplication=1.0),
        Weather(duplication=0.3, loss=0.03),
        Weather(reordering=0.1, delay=0.001),
        Weather(loss=0.03, duplication=0.1, reordering=0.1, delay=0.001),
    ],
    ids=["loss", "doubled", "doubled-and-loss", "mixed-up", "all"],
)
@pytest.mark.parametrize("window", [1, 4, 16])
async def test_bad_weather(weather: Weather, window: int) -> None:
    """Whatever a network does to single datagrams, the file arrives, and soon."""
    options: dict[str, object] = {"blksize": 1468, **({"windowsize": window} if window > 1 else {})}
    async with (
        open_server() as server,
        bad_network(server.address, weather, seed=window) as front,
        Client(front) as client,
    ):
        with trio.fail_after(PATIENCE):
            assert await client.fetch("loader.efi", again=0.4, **options) == FILES["loader.efi"]


async def test_doubled_acks_cost_nothing() -> None:
    """With each datagram doubled on its way, the server sends no block twice."""
    weather = Weather(duplication=1.0, delay=0.002)
    async with (
        open_server() as server,
        bad_network(server.address, weather) as front,
        Client(front) as client,
    ):
        with trio.fail_after(PATIENCE):
            await client.fetch("exact", again=5)
            (read,) = await server.wait_reads(1)
        assert (read.outcome, read.retransmissions) == (Outcome.DONE, 0)
