"""The supervisor gives the event log a new broker when it takes no commits, and room to do so."""

import subprocess
import sys

SCRIPT = """
import subprocess, sys, time
from pathlib import Path
import cli.supervisor as module
from cli.state import State, make_directories

state = State.at(sys.argv[1])
make_directories(state)
module.DISK_FREE_MIN = int(sys.argv[2])
said = []
supervisor = module.Supervisor(state, {}, say=said.append)
supervisor._start_again = lambda child: setattr(child, "due", None)
for name, command in (("nats", ["sleep", "60"]), ("engine", ["sh", "-c", "exit 75"])):
    child = supervisor.children[name] = module.Child(name)
    child.process = subprocess.Popen(command)
    supervisor._follow(child, child.process.pid)
deadline = time.monotonic() + 20
while time.monotonic() < deadline and len(said) < int(sys.argv[3]):
    supervisor.tick()
nats = supervisor.children["nats"]
if nats.pid:
    nats.process.kill()
print("\\n".join(said))
"""


def _said(directory, free_min, lines):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(directory), str(free_min), str(lines)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_a_log_that_takes_no_commits_gets_a_new_broker(tmp_path):
    said = _said(tmp_path, 0, 3)

    assert "takes no commits; starting nats-server again" in said
    assert "nats (pid" in said.splitlines()[-1]


def test_on_a_full_disk_the_broker_is_left_for_readers(tmp_path):
    said = _said(tmp_path, 2**62, 2)

    assert "is full" in said
    assert "nats (pid" not in said
