"""The policy on the command line: a file is checked by line, tried, set, and taken back."""

from pathlib import Path

import pytest

from cli.policy import read_rules
from cli.problem import Problem

DEMO = "cumulog-demo"
GOOD = """# Ours.
[network]
CreateNetwork = [
    "admin in cloud",
    "manager in project",
]
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return path


def test_a_file_is_read_with_or_without_sections(tmp_path: Path):
    rules = {"CreateNetwork": ["admin in cloud", "manager in project"]}

    assert read_rules(written(tmp_path, GOOD)) == rules
    assert read_rules(written(tmp_path, GOOD.replace("[network]\n", ""))) == rules
    assert read_rules(written(tmp_path, "")) == {}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("\nCreateNetwrk = []\n", 2, "did you mean CreateNetwork?"),
        (GOOD.replace("manager in", "manager of"), 5, "'manager of project' is not"),
        ('[a]\n\n"compute:servers:read" = "all"\n', 3, "needs a list of entries"),
        ("[a]\nDeleteServer = [1]\n", 2, "needs a list of entries"),
        ("[a]\nDeleteServer = []\n[b]\nDeleteServer = []\n", 2, "has a rule already"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, line: int, said: str):
    path = written(tmp_path, text)

    with pytest.raises(Problem) as problem:
        read_rules(path)

    assert f"{path}:{line}: " in str(problem.value)
    assert said in str(problem.value)


def test_what_is_no_toml_is_told_with_its_line(tmp_path: Path):
    with pytest.raises(Problem, match=r"at line 3, column"):
        read_rules(written(tmp_path, "[network]\nCreateNetwork = [\n= "))


def test_a_policy_is_checked_set_and_taken_back(cloud, tmp_path: Path):
    path = written(tmp_path, GOOD)

    checked = cloud.run("policy", "check", str(path))
    assert checked.code == 0, checked.errors
    assert "loses  member in project (over project)" in checked.output
    assert "No rows" not in checked.output
    assert cloud.json("policy", "show", "--changed")["rules"] == {}

    done = cloud.run("policy", "set", str(path))
    assert done.code == 0, done.errors
    held = cloud.json("policy", "show", "--changed")["rules"]
    assert held == {
        "CreateNetwork": {"entries": ["admin in cloud", "manager in project"], "changed": True}
    }

    refused = cloud.run("network", "create", "closed", cloud=DEMO)
    assert refused.code != 0
    request_id = next(word for word in refused.errors.split() if "req-" in word).strip("().")
    why = cloud.run("why-denied", request_id, cloud=DEMO)
    assert "«manager in project» would have needed the role manager" in why.output, why.errors
    assert "Now it would be refused again." in why.output
    what_if = cloud.json("policy", "what-if", str(written(tmp_path, "")))
    assert request_id in str(what_if["allowed"])

    reset = cloud.run("policy", "reset", "CreateNetwork")
    assert reset.code == 0, reset.errors
    assert cloud.json("policy", "show", "--changed")["rules"] == {}
    assert "Now it would pass." in cloud.run("why-denied", request_id, cloud=DEMO).output


def test_the_table_is_told_as_cedar(cloud):
    shown = cloud.run("policy", "show", "DeleteServer", "--cedar")

    assert shown.code == 0, shown.errors
    assert shown.output.count('permit (principal, action == Action::"DeleteServer", ') == 2


def test_who_can_names_users_and_their_grants(cloud):
    shown = cloud.run("who-can", "DeleteServer")

    assert shown.code == 0, shown.errors
    assert "admin in cloud" in shown.output
    assert "system" in shown.output
    assert "everybody signed in" in cloud.run("who-can", "compute:flavors:read").output
    assert cloud.run("who-can", "NoSuchAction").code != 0
