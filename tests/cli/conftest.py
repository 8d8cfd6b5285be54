"""A whole cloud with a simulated host, started as a person would start it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import Up


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    """A cloud not yet started; stopped at the end."""
    cloud = Up(tmp_path / "state")
    yield cloud
    if cloud.process is not None:
        cloud.stop()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running cloud, shared by a module's tests."""
    cloud = Up(tmp_path_factory.mktemp("cloud") / "state")
    try:
        cloud.start()
        yield cloud
    finally:
        if cloud.process is not None:
            cloud.stop()
