"""Closes what the stories opened."""

from collections.abc import Iterator

import pytest

from tests.projections import story


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while story.OPENED:
        story.OPENED.pop().close()
