"""What processes leave behind when they end."""

import subprocess
import sys

import pytest

FROZEN = """
import atexit, gc
import duckdb
from cli.serve import thaw
gc.freeze()
{thaw}
with duckdb.connect() as db:
    db.execute("SELECT 1").fetchall()
"""


@pytest.mark.parametrize(("thaw", "said"), [("atexit.register(thaw)", False), ("", True)])
def test_a_process_ends_without_talk_of_leaks(thaw, said):
    """The second one is why: without it DuckDB writes a page into the log of each process."""
    code = FROZEN.format(thaw=thaw)
    ended = subprocess.run(  # our own words
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert ("leaked" in ended.stderr) is said
