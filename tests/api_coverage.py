"""Which route of the API which client has called in tests: recorded, and shown in a table.

The record comes from the clouds that tests run: with ``CUMULOG_COVERAGE`` set to a file, each adds
what its stream ``ACCESS`` says was asked of it, by client (the User-Agent), route and status. So a
client is in the table only for calls that it really made and that were really answered.
"""

import itertools
import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from api.app import SURFACES
from api.microversions import HIGHEST, LOWEST, written
from api.routing import ANY_ACTION, Route, Surface
from schemas.access import AccessEntry

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "docs" / "api-coverage.json"
TABLE = ROOT / "docs" / "api-coverage.md"
ASKED_FOR = "CUMULOG_COVERAGE"
TESTS_AGENT = "cumulog-tests"
TOLD_S = 60.0

# By what is in a User-Agent; the first that fits. In the order of the table's columns.
CLIENTS = {
    "tests": (TESTS_AGENT,),
    "schemathesis": ("schemathesis",),
    "cumulog": ("cumulog",),
    "openstacksdk": ("sdk-tests",),  # as tests/api/test_clients.py has the SDK name its application
    "openstack": ("openstacksdk",),  # which the command leaves unnamed
}

type Statuses = dict[str, dict[str, list[int]]]  # by route, by client

_marks = itertools.count(1)
_decode = msgspec.json.Decoder(AccessEntry).decode


class Line(Struct, frozen=True):
    """One line of the table."""

    surface: Surface
    method: str
    path: str
    route: Route

    @property
    def key(self) -> str:
        """What the record calls it; routes of several microversions are one there."""
        return f"{self.method} {self.path}"


def lines() -> list[Line]:
    """Return every route, services in order, paths in the order of the alphabet."""
    return [
        Line(surface, method, surface.prefix + path, route)
        for surface in SURFACES
        for method, path, route in sorted(
            surface.routes.listing(), key=lambda one: (one[1], one[0], one[2].first)
        )
    ]


def client_of(agent: str) -> str | None:
    """Return which client a User-Agent is of; None if of none that the table names."""
    words = {word.partition("/")[0] for word in agent.split()}
    return next((name for name, known in CLIENTS.items() if words & {*known}), None)


def note(state_dir: Path, url: str, path: Path) -> None:
    """Add what was asked of a running cloud to a record."""
    mark = f"mark-{os.getpid()}-{next(_marks)}"
    with closing(HTTPConnection(urlsplit(url).netloc, timeout=30)) as connection:
        try:
            connection.request("GET", "/identity", headers={"User-Agent": mark})
        except ConnectionRefusedError:
            return  # A test has ended the edge; it will tell nothing more.
        connection.getresponse().read()
    deadline = monotonic() + TOLD_S
    found = entries(state_dir)
    # An edge tells of each second when it is over: what came before the mark is there with it.
    while not any(entry.agent == mark for entry in found):
        assert monotonic() < deadline, "the last request is not told of"
        sleep(0.1)
        found = entries(state_dir)
    write(path, merged(read(path), noted(found)))


def noted(found: Iterable[AccessEntry]) -> Statuses:
    """Return which client was answered what by which route."""
    prefixes = {surface.name: surface.prefix for surface in SURFACES}
    known: Statuses = {}
    for entry in found:
        client = client_of(entry.agent)
        if client is not None and entry.method:  # a route: that of a root is ""
            method = "GET" if entry.method == "HEAD" else entry.method  # one route answers both
            key = f"{method} {prefixes[entry.api]}{entry.route}"
            known.setdefault(key, {}).setdefault(client, []).append(entry.status)
    return known


def entries(state_dir: Path) -> list[AccessEntry]:
    """Return what the nodes of a state directory keep of their edges' requests."""
    found: list[AccessEntry] = []
    for file in (state_dir / "access").glob("*.sqlite"):
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
            found += [_decode(body) for (body,) in db.execute("SELECT body FROM access")]
    return found


def merged(*records: Statuses) -> Statuses:
    """Return several records as one, without routes that are no more."""
    known: defaultdict[str, defaultdict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for record in records:
        for key, clients in record.items():
            for client, statuses in clients.items():
                known[key][client].update(statuses)
    return {
        line.key: {c: sorted(known[line.key][c]) for c in CLIENTS if known[line.key][c]}
        for line in lines()
        if line.key in known
    }


def read(path: Path) -> Statuses:
    """Return a record; an empty one if there is none yet."""
    return msgspec.json.decode(path.read_bytes(), type=Statuses) if path.is_file() else {}


def write(path: Path, record: Statuses) -> None:
    """Write a record, a line a route."""
    rows = ",\n".join(
        f"  {msgspec.json.encode(key).decode()}: {msgspec.json.encode(value).decode()}"
        for key, value in record.items()
    )
    path.write_text(f"{{\n{rows}\n}}\n")


def table(record: Statuses) -> str:
    """Return the page that shows all routes and who has called them."""
    found = lines()
    called = {key for key, clients in record.items() if clients}
    never = sum(line.key not in called for line in found)
    return "\n".join(
        [
            "# What the API has, and which client calls it in tests",
            "",
            "Made by `script/api-coverage` from the routes' declarations and from",
            "[api-coverage.json](api-coverage.json), the record of the requests that clouds under",
            "test really answered. A client's cell has the statuses it was answered with;",
            "an empty one means that no test had this client call this route.",
            "",
            f"{len(found)} routes; {len(found) - never} called by some client, {never} by none.",
            *itertools.chain.from_iterable(
                (
                    "",
                    f"## {surface.name}",
                    "",
                    f"| | path | policy action | versions | {' | '.join(CLIENTS)} |",
                    f"|---|---|---|---|{'---|' * len(CLIENTS)}",
                    *(row(line, record) for line in found if line.surface is surface),
                )
                for surface in SURFACES
            ),
            "",
        ]
    )


def row(line: Line, record: Statuses) -> str:
    """Return one line of the table."""
    clients = record.get(line.key, {})
    actions = "any" if line.route.actions == (ANY_ACTION,) else ", ".join(line.route.actions)
    told = [", ".join(map(str, clients.get(client, ()))) for client in CLIENTS]
    return f"| {line.method} | `{line.path}` | {actions} | {versions(line)} | {' | '.join(told)} |"


def versions(line: Line) -> str:
    """Return the microversions that have a route."""
    if line.surface.versions is None:
        return ""
    low = max(line.surface.versions.minimum, line.route.first)
    high = min(line.surface.versions.maximum, line.route.last)
    if line.route.first == LOWEST and line.route.last == HIGHEST:
        return "all"
    return written(low) if low == high else f"{written(low)}–{written(high)}"  # noqa: RUF001


def main() -> None:
    """Write the table anew from what is recorded."""
    record = merged(read(RECORD))
    write(RECORD, record)
    TABLE.write_text(table(record))
    print(next(line for line in TABLE.read_text().splitlines() if " routes; " in line))


if __name__ == "__main__":
    main()
