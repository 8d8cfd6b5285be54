"""An agent at work on a simulated host, under an engine in memory."""

import pytest

from tests.executors.world import Engine, SimulatedHost


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def host():
    return SimulatedHost()


@pytest.fixture
async def agent(engine, host):
    agent = host.agent(engine)
    await agent.start()
    yield agent
    await agent.close()
