"""One daemon for the whole museum, and what must be true after each exhibit: nobody died, nothing outside was touched."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from museum import World  # noqa: E402


@pytest.fixture(scope="session")
def whole_world(tmp_path_factory):
    with World(tmp_path_factory.mktemp("museum")) as world:
        yield world
        world.end()


@pytest.fixture()
def world(whole_world):
    yield whole_world
    whole_world.look()
