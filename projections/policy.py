"""Read model of the policy: the rules that an operator has set, in one row."""

from projections.store import Table, Writer
from schemas import policy as s
from schemas.units import Micros, Ordinal

NAME = "policy"
VERSION = 1
ROW = "policy"

POLICY = Table(
    "policy",
    s.PolicyTable,
    columns="id TEXT NOT NULL, version INTEGER NOT NULL",
    values=lambda p: (ROW, p.version),
)

STATEMENTS = POLICY.create


def _set(writer: Writer, fact: s.PolicySet, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(POLICY, fact.table, ordinal)


APPLY = {s.PolicySet: _set}
