"""The machine's `pvecm`, which in here has a real network.

The simulator's own keeps to loopback addresses, because its machines are directories on somebody's computer.
This one is the same program with another connection.
"""

import http.client
import ssl
from collections.abc import Callable
from pathlib import Path

from provd.simulator.cluster import admission, programs
from provd.simulator.cluster.client import ApiClient, CannotConnect
from provd.simulator.cluster.leaves import fingerprint_of


class LanClient(ApiClient):
    """An `ApiClient` for any address."""

    def __init__(self, address: str, port: int, verify: Callable[[str], None]) -> None:
        context = ssl.create_default_context()
        context.check_hostname = False  # the pinned leaf counts, not its names
        context.verify_mode = ssl.CERT_NONE
        self._connection = http.client.HTTPSConnection(address, port, timeout=60, context=context)
        self._headers = {}
        try:
            self._connection.connect()
        except OSError as exc:
            raise CannotConnect(exc.strerror or "Connection timed out") from exc
        tls: ssl.SSLSocket = self._connection.sock
        der = tls.getpeercert(binary_form=True)
        assert der is not None  # a TLS server always shows one
        verify(fingerprint_of(der))


def main(program: str, words: list[str]) -> int:
    """Returns the exit status."""
    vars(admission)["ApiClient"] = LanClient
    return programs.main(program, words)


def use_lan(root: Path) -> None:
    """Let the `pvecm` that `install_pve_tools` made for the machine of `root` come in here."""
    wrapper = root / "usr/local/bin/pvecm"
    wrapper.write_text(wrapper.read_text().replace(programs.__name__, __name__))
