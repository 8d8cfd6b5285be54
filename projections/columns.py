"""The columns of segments, of every format that was ever written, as SQL reads them.

Invariant: what reads segments sees the newest format's columns, whichever the file has.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

FORMAT = 2

STORED = (
    "ordinal, seq, commit_id, epoch, hash, salt, ts, kind, tag, resource_kind, resource_id, "
    "project_id, user_id, request_id, cause, verdict, code, body"
)
# What format 2 added, from what older segments have.
_ADDED = {
    1: "CASE kind WHEN 'request' THEN coalesce(json_extract_string(body, "
    "'$.request.client.address'), '') ELSE '' END AS address, "
    "make_timestamp(ts) AS committed_at, CAST(make_timestamp(ts) AS DATE) AS day",
    2: "address, committed_at, day",
}
assert FORMAT in _ADDED, "what is written can be read"


def rows_of(files: Sequence[tuple[Path, int]]) -> str:
    """Return SQL that reads segments (file, format), one after the other."""
    selects: list[str] = []
    for form, run in itertools.groupby(files, key=lambda file: file[1]):
        listed = ", ".join(f"'{quoted(path)}'" for path, _ in run)
        selects.append(f"SELECT {STORED}, {_ADDED[form]} FROM read_parquet([{listed}])")  # noqa: S608  # our own files
    return " UNION ALL ".join(selects)


def quoted(path: Path) -> str:
    """Return a path as it stands within quotes in SQL."""
    return str(path).replace("'", "''")
