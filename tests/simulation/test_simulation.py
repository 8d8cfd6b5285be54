"""The whole cell under a simulated clock, network, log and host: some hundreds of its histories.

Each simulation runs in processes of its own, since it rules over the interpreter's clocks, ids and
hash seed.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEEDS = 300
PLANTED = (
    "reply_before_ack", "no_fence", "lost_wake_up", "doubled_dispatch", "generation_ignored",
    "deadline_dropped", "position_saved_early", "undo_missing", "clock_going_back", "key_reused",
    "short_election", "no_barrier", "quota_ignored",
)  # fmt: skip
# Each found among the first of these many seeds, or not at all.
PLANTED_SEEDS = 1000
# A simulation in which none of these came to pass would have proven nothing.
MET = (
    "ambush", "pipelined", "stored_of_killed", "stored_of_stopped", "refused_of_killed",
    "refused_of_stopped", "LeaderElected", "lost", "twice", "cut", "stall", "lie", "kill", "pause",
    "stop", "power_cut", "end_domain", "stray", "step_clock", "lose_host", "work_lost",
    "answer_lost", "unanswered", "OperationCancelled", "OperationFailed", "OperationSucceeded",
    "OperationTimedOut", "HostDriftDetected", "HostMarked", "ServerTaskFailed", "ServerFailed",
    "ServerRebooted", "ServerDeleted", "ServerStopped", "rolled", "snapshot", "quota",
)  # fmt: skip


def simulate(*arguments, timeout_s=280):
    """Run script/simulate; return its exit status and what it said."""
    command = [sys.executable, "-m", "tests.simulation", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    return done.returncode, done.stdout + done.stderr


def kept_seeds():
    lines = (ROOT / "tests/simulation/seeds.txt").read_text().splitlines()
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]


def test_seeds_that_once_found_something_hold():
    if seeds := kept_seeds():
        status, said = simulate("--only", *seeds)
        assert status == 0, said


@pytest.mark.slow
def test_hundreds_of_histories_hold_and_meet_what_they_should():
    status, said = simulate("--seeds", SEEDS)

    assert status == 0, said
    met = dict(re.findall(r"(\w+) (\d+)", said.split("met: ")[1]))
    assert [what for what in MET if what not in met] == []


def test_a_seed_is_one_history_whatever_process_runs_it():
    courses = [re.search(r"digest (\w+)", simulate("--seed", 7)[1])[1] for _ in range(2)]

    assert courses[0] == courses[1]


def test_two_seeds_are_two_histories():
    courses = [re.search(r"digest (\w+)", simulate("--seed", seed)[1])[1] for seed in (7, 8)]

    assert courses[0] != courses[1]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug):
    status, said = simulate("--bug", bug, "--seeds", PLANTED_SEEDS, timeout_s=1100)

    assert status == 0, said


def test_a_failing_seed_says_how_to_repeat_it():
    _, said = simulate("--bug", "doubled_dispatch", "--first", 0, "--seeds", 20)

    seed = re.search(r"repeat it with: script/simulate --seed (\d+) --bug doubled_dispatch", said)[
        1
    ]
    status, again = simulate("--seed", seed, "--bug", "doubled_dispatch", "-v")
    assert status == 0
    assert "was started again under boot" in again
    assert " told client-" in again
