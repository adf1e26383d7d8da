from collections.abc import Iterator

import pytest

from tests.cli.world import World
from tests.small_disk import disk

__all__ = ["disk", "world"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A small world as the working folder of this process."""
    with pytest.MonkeyPatch.context() as patch:
        made = World(tmp_path_factory.mktemp("world"))
        patch.chdir(made.folder)
        patch.setenv("AUTOCOMPRESS_HOME", str(made.folder / "home"))
        yield made
