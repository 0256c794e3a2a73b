from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from endtoend.world import World, open_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A lab whose daemon has not been started yet."""
    async with open_world(tmp_path / "lab") as world:
        yield world
