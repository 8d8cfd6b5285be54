"""The command line as a whole: help, mistakes, exit codes."""

import importlib
import re
import shlex
import subprocess

import pytest
import typer

from cli.main import COMMANDS
from tests.cli.running import CUMULOG, run


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_of_the_table_is_there_and_explains_itself(name):
    module, _, attribute = COMMANDS[name][0].partition(":")
    command = typer.main.get_command(getattr(importlib.import_module(module), attribute))

    assert command.help
    for below, inner in getattr(command, "commands", {}).items():
        assert inner.help, f"{name} {below} has no help"


def test_help_lists_every_command():
    done = run("--help")

    assert done.code == 0
    assert set(COMMANDS) <= set(re.findall(r"^  ([\w-]+)", done.output, re.MULTILINE))


def test_an_unknown_command_is_wrong_usage_and_names_its_neighbours():
    done = run("sever", "list")

    assert done.code == 2
    assert "Did you mean server" in done.errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["server", "list", "-o", "xml"], "'xml' is not one of table, json, yaml"),
        (["server", "console", "x", "--lines", "0"], "0 is less than 1"),
        (["server", "console", "x", "--lines", "many"], "'many' is not a whole number"),
        (["server", "show"], "Missing argument"),
        (["up", "--listen", "8780"], "HOST:PORT"),
        (["submit"], "submit --list"),
        (["submit", "CreatServer"], "did you mean CreateServer"),
        (["submit", "CreateServer", "--json", "{"], "not JSON"),
        (["submit", "CreateServer", "--json", "[]"], "takes an object"),
        (["submit", "CreateServer", "--json", "@/nonexistent"], "cannot read /nonexistent"),
        (["replay"], "--verify"),
        (["serve", "nothing"], "engine, standby"),
        (["serve", "engine", "--state-dir", "/nonexistent"], "cannot read"),
        (["destroy", "--yes", "--state-dir", "/nonexistent"], "no cloud in /nonexistent"),
        (["server", "list", "--os-cloud", "elsewhere"], "no cloud 'elsewhere'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_usage_is_told_in_one_line_with_exit_code_2(arguments, said, tmp_path):
    done = run(*arguments, HOME=str(tmp_path))

    assert done.code == 2
    assert said in done.errors
    assert len([line for line in done.errors.splitlines() if said in line]) == 1


def test_a_cloud_that_is_not_there_is_told_in_one_line_with_exit_code_3():
    done = run("server", "list", OS_AUTH_URL="http://127.0.0.1:9/identity/v3", OS_USERNAME="x")

    assert done.code == 3
    assert done.errors.startswith("cumulog: cannot reach http://127.0.0.1:9")
    assert done.errors.count("\n") == 1


def test_a_terminal_that_is_not_utf_8_is_no_error(tmp_path):
    done = run("server", "show", "\N{SNOWMAN}", HOME=str(tmp_path), PYTHONIOENCODING="ascii")

    assert done.code == 2


def test_a_reader_that_has_gone_is_told_nothing():
    shell = f"{shlex.quote(CUMULOG)} submit --list -o json | head -n 1"

    done = subprocess.run(["bash", "-o", "pipefail", "-c", shell], capture_output=True, check=False)

    assert done.stderr == b""
