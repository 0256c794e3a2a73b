"""A distribution's kernel image, and those of its modules that a machine of the lab needs, in loading order.

Reads module files; loads nothing and packs nothing.
"""

import lzma
import re
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

_INFO = re.compile(rb"\0(depends|softdep)=([^\0]*)\0")


@frozen(kw_only=True)
class Kernel:
    image: Path
    modules: Path
    """`lib/modules/RELEASE` of the package."""

    @classmethod
    def of_package(cls, files: Path) -> "Kernel":
        """The kernel in an unpacked Debian `linux-image-*` package."""
        (image,) = (files / "boot").glob("vmlinuz-*")
        roots = (files / "lib/modules", files / "usr/lib/modules")  # the latter since Debian 13
        (modules,) = (found for root in roots if root.is_dir() for found in root.iterdir())
        return cls(image=image, modules=modules)

    def load_order(self, names: Iterable[str]) -> dict[str, bytes]:
        """The modules `names` and all that they depend on, each after its dependencies; name to content.

        What is built into the kernel is left out. Raises `KeyError` for a name that the kernel does not know.
        """
        files = {_plain(path.name.partition(".")[0]): path for path in self.modules.rglob("*.ko*")}
        builtin = {_plain(Path(line).stem) for line in (self.modules / "modules.builtin").read_text().split()}
        order: dict[str, bytes] = {}

        def visit(name: str, *, wanted: bool) -> None:
            if name in order or name in builtin or (name not in files and not wanted):
                return
            content = _content(files[name])
            for kind, value in _INFO.findall(content.replace(b"\0", b"\0\0")):
                text = value.decode()
                if kind == b"depends":
                    for other in filter(None, text.split(",")):
                        visit(_plain(other), wanted=True)
                elif text.startswith("pre:"):
                    for other in text.removeprefix("pre:").partition("post:")[0].split():
                        visit(_plain(other), wanted=False)
            order[name] = content

        for name in names:
            visit(_plain(name), wanted=True)
        return order


def _plain(name: str) -> str:
    return name.replace("-", "_")


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content
