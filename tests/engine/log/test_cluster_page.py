"""docs/cluster.md says what each identity may do: exactly what the servers are told."""

import re
from collections import Counter
from pathlib import Path

from engine.log.accounts import STORE_SIDE, accounts, agent_user
from schemas.subjects import LOG_STREAMS_MAX

PAGE = Path(__file__).parents[3] / "docs" / "cluster.md"
CELL = "a"
HOST = "h1"
NUMBERED = f"LOG-{CELL}-<n>"


def short(subjects):
    """Return the subjects with one for the same call on each stream of the log."""
    counted = Counter(
        subject.replace(f"LOG-{CELL}-{n:04}", NUMBERED) for subject, n in numbered(subjects)
    )
    assert all(count == LOG_STREAMS_MAX for name, count in counted.items() if NUMBERED in name)
    return list(counted)


def numbered(subjects):
    for subject in subjects:
        found = re.search(rf"LOG-{CELL}-(\d{{4}})$", subject)
        yield subject, int(found[1]) if found else 0


def table():
    """Return the page's table, in the order of the accounts."""
    users = ["engine", "edge", "history", "courier", "admin", agent_user(HOST), *STORE_SIDE]
    made = accounts(CELL, {agent_user(HOST): HOST}, dict.fromkeys(users, "secret"))
    lines = ["| identity (account) | may say | may hear |", "|---|---|---|"]
    for account, told in made.items():
        for user in told.get("users", []):
            says, hears = user["permissions"]["publish"], user["permissions"]["subscribe"]
            if says == ">":
                lines.append(f"| {user['user']} ({account}) | everything | everything |")
                continue
            may = ", ".join(f"`{subject}`" for subject in short(says["allow"]))
            never = "".join(f", never `{subject}`" for subject in says["deny"])
            heard = ", ".join(f"`{subject}`" for subject in hears["allow"])
            lines.append(f"| {user['user']} ({account}) | {may}{never} | {heard} |")
    return "\n".join(lines) + "\n"


def test_the_page_says_how_many_streams_there_may_be():
    assert f"0001 to {LOG_STREAMS_MAX:04}" in PAGE.read_text()


def test_the_page_has_the_table_as_it_is():
    assert table() in PAGE.read_text(), f"docs/cluster.md should say:\n{table()}"
