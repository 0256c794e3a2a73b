"""Runs what the dashboard's scripts decide, without a page: the real modules, in node."""

import shutil
import subprocess
from pathlib import Path

import pytest

from provd.web import assets

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def check(folder: Path, script: Path, *modules: str) -> None:
    """`script` finds `modules` of `static/` beside it, and says "checked" at its end."""
    for name in modules:
        shutil.copy(assets.static_folder() / name, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    shutil.copy(script, folder / "run.mjs")
    done = subprocess.run(["node", "run.mjs"], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.stdout == "checked\n", done.stdout + done.stderr
