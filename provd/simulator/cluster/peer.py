"""Another member as root on this machine reaches it: the real `ssh`, with the machine's own keys."""

import os
import subprocess
from getpass import getuser

from attrs import frozen

from provd.simulator.cluster.machine import Machine


@frozen
class Peer:
    """`host` as the command line has it, `address` what it resolves to, `port` where 22 would be."""

    machine: Machine
    host: str
    address: str | None
    port: int

    def run(self, command: str) -> subprocess.CompletedProcess[bytes]:
        """Run it over there; 255 if nobody was let in, as ssh ends. Nothing is ever asked (BatchMode)."""
        if self.address is None or not self.port:
            return subprocess.CompletedProcess(command, 255, b"", b"ssh: no such host\n")
        known_hosts = self._known_hosts()
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": f'"{known_hosts}"',
            "GlobalKnownHostsFile": "none",
            "IdentityFile": f'"{self.machine.path("/root/.ssh/id_rsa")}"',
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "HostKeyAlias": self.host,
            "ConnectTimeout": "10",
            "LogLevel": "ERROR",
        }
        flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return subprocess.run(
            ["ssh", "-F", "none", *flags, "-p", str(self.port), "-l", getuser(), self.address, command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={"PATH": os.environ.get("PATH", os.defpath)},
        )

    def _known_hosts(self) -> str:
        """The machine's own, with `[host]:port` as `host`: the port here stands for the original's 22."""
        lines = []
        for file in ("/root/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts"):
            if self.machine.path(file).exists():
                lines += self.machine.path(file).read_text().splitlines()
        suffix = f"]:{self.port}"
        copied = self.machine.path("/run/known_hosts")
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_text("".join(f"{line.replace('[', '', 1).replace(suffix, '', 1)}\n" for line in lines))
        return str(copied)
