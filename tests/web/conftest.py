from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from provd.config import load_config
from provd.daemon import open_parts
from provd.web.parts import Parts
from web.looking import config_in


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    """Every part of provd, with auth off and without listeners."""
    config = load_config(config_in(tmp_path), {"STATE_DIRECTORY": str(tmp_path / "state")})
    async with open_parts(config, {}) as parts:
        yield parts
