"""Documentation that cannot drift: its commands run, its links lead somewhere."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from cli.main import COMMANDS, app
from tests.cli.running import Up, clean_environment

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TUTORIALS = [ROOT / "README.md", ROOT / "docs" / "getting-started.md"]


def blocks(page: Path, kind: str) -> list[str]:
    """Return a page's code blocks of one kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A cloud with a simulated host, as `script/up` leaves it: the first server is there."""
    cloud = Up(tmp_path_factory.mktemp("docs") / "var")
    try:
        cloud.start("--demo")
        cloud.read_until("^Ctrl-C here")
        yield cloud
    finally:
        if cloud.process is not None:
            cloud.stop()


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.name)
def test_the_commands_of_a_tutorial_run_as_printed(page, shown, tmp_path):
    script = "set -euxo pipefail\n" + "\n".join(blocks(page, "sh"))
    (tmp_path / "var").symlink_to(shown.state_dir)
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])

    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        env=clean_environment(),
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_recorder_s_example_runs_as_printed(nats_server):
    (example,) = blocks(ROOT / "docs" / "recorder.md", "python")

    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env=clean_environment()
        | {
            "NATS_URL": nats_server.url,
            "NATS_PASSWORD": nats_server.credentials["admin"],
            "NATS_STREAM": f"docs-{os.getpid()}",
        },
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "100\n[1, 2]\n"), done.stderr


def test_the_demonstration_shows_what_happened(shown):
    for sign in (
        "✓ Server first: ACTIVE, 10.10.0.",
        "its domain runs on the host",
        "What it costs so far (cumulog bill): ",
        "Three commands to try next",
    ):
        assert sign in shown.output


def test_the_readme_names_the_two_commands():
    commands = "".join(blocks(ROOT / "README.md", "console")).split()

    assert commands == ["script/up", "script/test"]


def test_ci_calls_the_test_script_and_nothing_else():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith("#")]

    assert commands == ["set -euo pipefail", 'exec "$(dirname "$0")/../script/test"']


@pytest.mark.parametrize(
    "script",
    [*sorted(p for p in (ROOT / "script").iterdir() if p.is_file()), ROOT / ".ci" / "run"],
    ids=lambda path: path.name,
)
def test_scripts_can_be_run_and_stop_at_the_first_error(script):
    text = script.read_text()

    assert os.access(script, os.X_OK)
    if text.startswith("#!/usr/bin/env bash"):
        assert "\nset -euo pipefail\n" in text
        subprocess.run(["bash", "-n", str(script)], timeout=10, check=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_where_things_happen_is_where_the_architecture_says():
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`((?:schemas|engine|projections|executors|api|cli)/[a-z_/.]*)`", text)

    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_command_named_in_the_docs_exists():
    named = set()
    for page in PAGES:
        named |= set(re.findall(r"\bcumulog ([a-z][a-z-]*(?: [a-z-]+)?)", page.read_text()))
    unknown = set()
    for words in named:
        name, _, below = words.partition(" ")
        group = typer.main.get_command(app).get_command(None, name)
        if group is None or (below and hasattr(group, "commands") and below not in group.commands):
            unknown.add(words)

    assert unknown == set()
    assert COMMANDS


def test_no_file_refers_to_a_place_outside_of_the_repository():
    """A clone has nothing beside it."""
    outside = ["../" + "shared", "/" + "work/"]
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout.split("\0")
    found = []
    for name in filter(None, files):
        path = ROOT / name
        if path.is_file() and path.suffix not in {".lock", ".png"}:
            text = path.read_text(errors="replace")
            found += [f"{name}: {word}" for word in outside if word in text]

    assert found == []
