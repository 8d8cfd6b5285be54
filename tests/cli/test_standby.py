"""Two engines: the one that leads is killed or stopped under load, and the other takes over."""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from cli.client import Client
from cli.credentials import find_cloud
from cli.problem import Problem
from tests.cli.running import Up, eventually

ENGINES = ("engine", "standby")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    cloud = Up(tmp_path_factory.mktemp("standby") / "state")
    cloud.start("--standby", "--no-demo")
    yield cloud
    cloud.stop()


def status(up: Up) -> dict:
    """Return what `status` tells, whether or not all is well."""
    return json.loads(up.run("status", "--state-dir", str(up.state_dir), "-o", "json").output)


def leader(up: Up) -> tuple[str, int]:
    """Return which of the two leads, and its epoch."""
    told = status(up)["api"]["engine"]
    return ENGINES[str(told["node"]).endswith("-standby")], told["epoch"]


class Asker(threading.Thread):
    """Makes one project after another, and keeps what was acknowledged."""

    def __init__(self, up: Up, name: str) -> None:
        super().__init__()
        self.prefix = name
        self.client = Client(find_cloud("cumulog", str(up.state_dir)))
        self.ending = threading.Event()
        self.acknowledged: list[tuple[str, str, int]] = []
        self.failures: list[Problem] = []
        self.moved = threading.Condition()

    def run(self) -> None:
        with contextlib.closing(self.client):
            self._ask()

    def _ask(self) -> None:
        number = 0
        while not self.ending.is_set():
            number += 1
            name = f"{self.prefix}-{number}"
            try:
                told = self.client.submit({"type": "CreateProject", "name": name}, name)
            except Problem as error:
                self.failures.append(error)
                return
            with self.moved:
                self.acknowledged.append((name, told["reply"]["project_id"], told["ordinal"]))
                self.moved.notify_all()

    def goes_on(self, more: int) -> None:
        """Return once so many more requests have been acknowledged."""
        with self.moved:
            wanted = len(self.acknowledged) + more
            reached = self.moved.wait_for(
                lambda: len(self.acknowledged) >= wanted or self.failures, timeout=60
            )
        assert reached
        assert not self.failures, self.failures


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.timeout(300)
def test_the_other_takes_over_and_nothing_is_lost_or_done_twice(up, how):
    askers = [Asker(up, f"{how.name}-{number}") for number in range(4)]
    for asker in askers:
        asker.start()
    try:
        for asker in askers:
            asker.goes_on(3)
        name, epoch = leader(up)
        pid = int((up.state_dir / "run" / f"{name}.pid").read_text())

        os.kill(pid, how)

        for asker in askers:
            asker.goes_on(5)
        other, later = leader(up)
        assert later > epoch
        if how == signal.SIGSTOP:
            told = {part["part"]: part["state"] for part in status(up)["parts"]}
            assert told[name] == "stopped"
        if how == signal.SIGSTOP:  # one that was killed may be back before the other looks
            assert other != name
            os.kill(pid, signal.SIGCONT)
            for asker in askers:
                asker.goes_on(5)
    finally:
        for asker in askers:
            asker.ending.set()
        for asker in askers:
            asker.join(60)

    assert [failure for asker in askers for failure in asker.failures] == []
    acknowledged = {name: (project, at) for a in askers for name, project, at in a.acknowledged}
    projects = [p for p in up.json("project", "list") if p["name"].startswith(how.name)]
    found = {project["name"]: project["id"] for project in projects}
    assert len(projects) == len(found), "none was made twice"
    assert {name: project for name, (project, _) in acknowledged.items()}.items() <= found.items()
    assert up.json("audit", "verify")["intact"] is True
    assert up.json("replay", "--verify")["matches"] is True
    eventually(
        lambda: up.run("status", "--state-dir", str(up.state_dir)).code == 0, "all is well again"
    )


def test_both_are_shown(up):
    parts = status(up)["parts"]

    assert {"engine", "standby"} <= {part["part"] for part in parts}
