"""A directory that plays `/`, and the shell that an SSH server would hand commands to."""

import os
from pathlib import Path

import trio
from attrs import define


@define(frozen=True)
class Ended:
    out: str
    err: str
    status: int


@define(eq=False)
class FakeRoot:
    root: Path
    shell: str = "sh"

    def put(self, name: str, text: str, mode: int = 0o600) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def files(self, *but: str) -> dict[str, str]:
        """Every file below, but those in the directories `but`; a name with its content."""
        found = {str(path.relative_to(self.root)): path for path in self.root.rglob("*") if path.is_file()}
        return {
            name: path.read_text(errors="replace") for name, path in found.items() if not name.startswith(but)
        }

    def program(self, name: str, body: str = "") -> None:
        """Put a program there, found before any of this computer's; it writes down how it was called."""
        head = '#!/bin/sh\nprintf "%s\\n" "${0##*/} $*" >>"$PROVD_ROOT/run/calls"\n'
        self.put(f"usr/local/bin/{name}", head + body, 0o755)
        self.put("run/calls", "")

    def calls(self) -> list[str]:
        return self.read("run/calls").splitlines()

    async def run(self, command: str, stdin: bytes = b"") -> Ended:
        with trio.fail_after(20):
            done = await trio.run_process(
                [self.shell, "-c", command],
                stdin=stdin,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                cwd=self.root,
                env={
                    "PROVD_ROOT": str(self.root),
                    "PATH": f"{self.root}/usr/local/bin:{os.environ['PATH']}",
                },
            )
        return Ended(done.stdout.decode(), done.stderr.decode(), done.returncode)
