"""A JSON document on disk that several processes read and change, one at a time.

It refuses to know what the document says. The lock is a file of its own beside the document, since the
document is replaced as a whole and a lock on a replaced file protects nothing.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def replace_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write the whole file or nothing; a reader sees the old content or the new."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(content)
    draft.chmod(mode)
    draft.replace(path)


def read_document(path: Path) -> dict[str, Any]:
    """The document as it stands; needs no lock, because it is only ever replaced."""
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document


def write_document(path: Path, document: dict[str, Any]) -> None:
    replace_file(path, json.dumps(document, indent=1).encode(), 0o600)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the document's lock. Blocks the thread, so nothing inside may await."""
    with path.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
