"""Commands start quickly: what they import is what they cost."""

import subprocess
import sys

import pytest

FORBIDDEN = {
    "litestar",
    "nats",
    "duckdb",
    "rich",
    "structlog",
    "pydantic",
    "uvloop",
    "cryptography",
}


def imported(*arguments: str) -> set[str]:
    """Return the top-level modules that a command imports."""
    program = (
        "import sys; from cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('\\n' + ' '.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={"HOME": "/nonexistent", "PATH": "/usr/bin"},
        check=False,
    )
    return {name.partition(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["server", "--help"],
        ["up", "--help"],
        ["server", "list", "--state-dir", "/nonexistent"],
        ["submit", "CreateServer", "--describe"],
    ],
    ids=" ".join,
)
def test_a_command_imports_nothing_heavy(arguments):
    assert imported(*arguments) & FORBIDDEN == set()


def test_help_imports_neither_http_nor_schemas():
    assert imported("--help") & {"http", "msgspec", "yaml", "asyncio"} == set()


def test_the_supervisor_imports_nothing_that_stays_in_memory():
    program = "import sys, cli.up; print(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    modules = {name.partition(".")[0] for name in done.stdout.split()}

    assert modules & (FORBIDDEN | {"msgspec", "asyncio", "typer", "yaml"}) == set()
