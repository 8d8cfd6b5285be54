"""kill -9 of each process at several moments: nothing is lost, nothing is doubled."""

import os
import signal
import sqlite3
import subprocess
from contextlib import closing

import pytest

from tests.cli.running import CUMULOG, alive, clean_environment, eventually
from tests.e2e.conftest import RealCloud

pytestmark = [pytest.mark.guest, pytest.mark.timeout(900)]

PROCESSES = ("engine", "agent", "projector", "api", "nats")
# How far the create or the delete has come when the process is killed, in ordinals after it began:
# while it is being asked for, once it is accepted, once the host has reported.
MOMENTS = (0, 1, 7)


@pytest.fixture(scope="module")
def network(real: RealCloud) -> str:
    made = real.json("network", "create", "net", cloud="cumulog-demo")
    real.json(
        *("subnet", "create", "sub", "--network", "net", "--cidr", "10.21.0.0/24"),
        cloud="cumulog-demo",
    )
    return made["id"]


def head(real: RealCloud) -> int:
    """Return the log's last ordinal as the read model knows it, whoever is down."""
    path = f"file:{real.state_dir}/read/node-1.sqlite?mode=ro"
    with closing(sqlite3.connect(path, uri=True, timeout=10)) as db:
        return int(db.execute("SELECT max(ordinal) FROM timeline").fetchone()[0] or 0)


def begin(real: RealCloud, process: str, moment: int, *arguments: str) -> None:
    """Ask for something and kill the process at its moment."""
    before = head(real)
    asking = subprocess.Popen(
        [CUMULOG, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=clean_environment()
        | {
            "OS_CLIENT_CONFIG_FILE": str(real.state_dir / "clouds.yaml"),
            "OS_CLOUD": "cumulog-demo",
        },
    )
    if moment:
        asking.wait(60)
        if process != "projector":  # nobody but itself moves the read model on
            eventually(lambda: head(real) >= before + moment, f"ordinal {before + moment}", 60)
    pid = real.pids()[process]
    os.kill(pid, signal.SIGKILL)
    code = asking.wait(120)
    if moment:
        assert code == 0
    eventually(lambda: not alive(pid), f"{process} is dead")
    eventually(lambda: well(real), "all is well again", 120)


def servers(real: RealCloud) -> list[dict]:
    return real.json("server", "list", cloud="cumulog-demo")


def well(real: RealCloud) -> bool:
    return real.run("status", "--state-dir", str(real.state_dir)).code == 0


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("process", PROCESSES)
def test_a_create_and_a_delete_survive_a_kill(real, network, process, moment):
    """The supervisor starts what died; the server ends as asked, with one of everything or none."""
    name = f"{process}-{moment}"
    create = ("server", "create", name, "--image", "tiny-guest", "--flavor", "m1.nano")
    begin(real, process, moment, *create, "--network", "net")
    if not servers(real):
        # Killed before it was accepted: the asker was told so, and asks again.
        assert moment == 0
        assert real.run(*create, "--network", "net", cloud="cumulog-demo").code == 0

    eventually(lambda: [s["status"] for s in servers(real)] == ["ACTIVE"], "one ACTIVE server", 180)
    eventually(lambda: len(real.inventory().leases) == 1, "one lease", 60)
    found = real.inventory()
    assert len(found.domains) == len(found.taps) == len(found.disks) == 1

    begin(real, process, moment, "server", "delete", name)
    if moment == 0 and [s["status"] for s in servers(real)] == ["ACTIVE"]:
        assert real.run("server", "delete", name, cloud="cumulog-demo").code in (0, 1)

    eventually(lambda: servers(real) == [], "no server", 180)
    eventually(lambda: real.inventory().of_servers() == {}, "nothing on the host", 120)


def test_the_chain_and_the_replay_hold_after_all_of_it(real):
    assert real.json("audit", "verify")["intact"] is True
    assert real.json("replay", "--verify")["matches"] is True


def test_everything_at_once_and_the_same_command_again(real, network):
    """The supervisor itself and all its children die; ``up`` finds what there is."""
    create = ("server", "create", "last", "--image", "tiny-guest", "--flavor", "m1.nano")
    assert real.run(*create, "--network", "net", cloud="cumulog-demo").code == 0
    for pid in (real.process.pid, *real.pids().values()):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    real.process.wait(30)
    real.process.stdout.close()

    real.start()

    eventually(lambda: [s["status"] for s in servers(real)] == ["ACTIVE"], "one ACTIVE server", 180)
    assert len(real.inventory().domains) == 1
    assert real.run("server", "delete", "last", "--wait", cloud="cumulog-demo").code == 0
    eventually(lambda: real.inventory().of_servers() == {}, "nothing on the host", 120)
    assert real.json("audit", "verify")["intact"] is True
