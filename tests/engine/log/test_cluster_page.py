"""docs/cluster.md says what each identity may do: exactly what the servers are told."""

from pathlib import Path

from engine.log.accounts import STORE_SIDE, accounts, agent_user

PAGE = Path(__file__).parents[3] / "docs" / "cluster.md"
CELL = "a"
HOST = "h1"


def table():
    """Return the page's table, in the order of the accounts."""
    users = ["engine", "edge", "history", "admin", agent_user(HOST), *STORE_SIDE]
    made = accounts(CELL, {agent_user(HOST): HOST}, dict.fromkeys(users, "secret"))
    lines = ["| identity (account) | may say | may hear |", "|---|---|---|"]
    for account, told in made.items():
        for user in told.get("users", []):
            says, hears = user["permissions"]["publish"], user["permissions"]["subscribe"]
            if says == ">":
                lines.append(f"| {user['user']} ({account}) | everything | everything |")
                continue
            may = ", ".join(f"`{subject}`" for subject in says["allow"])
            never = "".join(f", never `{subject}`" for subject in says["deny"])
            heard = ", ".join(f"`{subject}`" for subject in hears["allow"])
            lines.append(f"| {user['user']} ({account}) | {may}{never} | {heard} |")
    return "\n".join(lines) + "\n"


def test_the_page_has_the_table_as_it_is():
    assert table() in PAGE.read_text(), f"docs/cluster.md should say:\n{table()}"
