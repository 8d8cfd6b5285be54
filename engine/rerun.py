"""Recorded load under other rules: what would have been decided. Pure.

Each recorded request is decided anew, in its order and at its time, with a quota, the policy or the
order of hosts being another, on a state that follows from the new decisions alone: what is refused
now never came to be, and what then asks about it is refused in its turn (``followed``). Ids are
those of the record, so that later requests find what they mean. Invariant: without a change nothing
differs, and the state is the recorded one. What the record refused and is accepted now has nobody
who works on it: it is held to the end.
"""

import uuid
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from engine.decider import authenticate, decide, refusal
from engine.domain.fold import apply_record
from engine.domain.network.port import mac_of
from engine.domain.placement import order_hosts
from engine.domain.state import Cell
from schemas.compute import ServerFailed, ServerPlaced
from schemas.envelope import Accepted, Record, Refused
from schemas.errors import Forbidden, QuotaExceeded, Rejected
from schemas.policy import PolicyTable
from schemas.units import Micros, Ordinal

DIFFERENCES_MAX = 500
NAMESPACE = uuid.UUID("1c5d4d8e-9d0b-5c39-9a53-64a3e0a1c0de")

type Order = Literal["spread", "pack"]
type What = Literal["refused", "allowed", "elsewhere", "followed"]


class Changed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be otherwise; what is not named is as it was.

    ``quota`` limits hold for ``project``, or for every project that has none of its own; ``rules``
    are the whole of what an operator has set over the default policy; ``order`` is that in which
    hosts are tried: the emptiest first (``spread``, as it is), or the fullest (``pack``).
    """

    quota: dict[str, int] = {}
    project: str | None = None
    rules: dict[str, tuple[str, ...]] | None = None
    order: Order | None = None


class Side(Struct, frozen=True, kw_only=True):
    """What was or would have been decided. ``hosts`` are those that servers were put on."""

    verdict: Literal["accepted", "refused"]
    code: str = ""
    reason: str = ""
    hosts: tuple[str, ...] = ()


class Difference(Struct, frozen=True, kw_only=True):
    """A request that is decided otherwise."""

    what: What
    ordinal: Ordinal
    at: Micros
    request_id: str
    action: str
    user_id: str
    project_id: str
    was: Side
    would: Side


class Compared(Struct, kw_only=True):
    """What came of it: how many requests there were, and how many differ; the first of them."""

    since: Ordinal = 0
    ordinal: Ordinal = 0
    requests: int = 0
    refused: int = 0
    allowed: int = 0
    elsewhere: int = 0
    followed: int = 0
    reports: int = 0  # of agents and clocks, about what would not have been, or be otherwise
    unknown: int = 0  # refused by an edge before anybody knew what exactly was wanted
    differences: list[Difference] = field(default_factory=list)


class Rerun:
    """Decides recorded requests on a state of its own."""

    def __init__(self, cell: Cell, changed: Changed) -> None:
        """``cell`` is the state before the first of them; it is changed."""
        self.cell = cell
        self.compared = Compared(since=cell.state.ordinal)
        self._changed = changed
        self._change()

    def take(self, record: Record, first: Ordinal, at: Micros) -> None:
        """Decide the next record's request, and compare; ``first`` is its ordinal."""
        new = self._decided(record, first, at)
        if new.facts == record.facts:
            # Byte for byte as recorded: a field that has its default may be written out or not.
            new = msgspec.structs.replace(new, facts=record.facts)
        apply_record(self.cell, new, at)
        if new.facts:
            self._change()
        self._compare(record, new, first, at)
        self.compared.ordinal = first + len(record.facts)

    def _decided(self, record: Record, first: Ordinal, at: Micros) -> Record:
        drawn: list[str] = []

        def draw() -> str:
            drawn.append(str(uuid.uuid5(NAMESPACE, f"{first} {len(drawn)}")))
            return drawn[-1]

        new = self._decide(record, at, draw)
        if not drawn or not isinstance(record.verdict, Accepted):
            return new
        # As an id is written, and as a MAC address that is made of its last digits.
        written = {form: one for one in drawn for form in (_digits(one), mac_of(one))}
        known = dict(_pairs(_told(new), _told(record), written))
        ids = iter([known.get(one, one) for one in drawn])
        return self._decide(record, at, lambda: next(ids))

    def _decide(self, record: Record, at: Micros, new_id: Callable[[], str]) -> Record:
        request = record.request
        try:
            roles = authenticate(self.cell, request.actor)
        except Rejected as rejected:
            return Record(salt="", request=request, verdict=refusal(rejected))
        return decide(self.cell, request, now=at, new_id=new_id, roles=roles, salt=record.salt)

    def _change(self) -> None:
        """Have it otherwise, whatever has just been decided about the same."""
        changed, state = self._changed, self.cell.state
        if changed.quota and changed.project is None:
            state.quota_class = {**state.quota_class, **changed.quota}
        elif changed.quota and changed.project in state.projects:
            own = state.quotas.get(changed.project, {})
            state.quotas[changed.project] = {**own, **changed.quota}
        if changed.rules is not None and state.policy.rules != changed.rules:
            state.policy = PolicyTable(version=state.policy.version, rules=changed.rules)
        if changed.order is not None:
            order_hosts(self.cell, fullest_first=changed.order == "pack")

    def _compare(self, record: Record, new: Record, first: Ordinal, at: Micros) -> None:
        compared, actor = self.compared, record.request.actor
        was, would = _side(record), _side(new)
        if actor.kind != "user":
            compared.reports += was.verdict != would.verdict
            return
        compared.requests += 1
        action = type(record.request.action).__name__
        if action == "RefuseRequest":
            compared.unknown += 1
            return
        what: What
        if was.verdict == would.verdict:
            if was.hosts == would.hosts:
                return
            what = "elsewhere"
            compared.elsewhere += 1
        elif was.verdict == "refused":
            what = "allowed"
            compared.allowed += 1
        elif would.code in OF_RULES:
            what = "refused"
            compared.refused += 1
        else:
            what = "followed"
            compared.followed += 1
        if len(compared.differences) < DIFFERENCES_MAX:
            compared.differences.append(
                Difference(
                    what=what,
                    ordinal=first,
                    at=at,
                    request_id=record.request.request_id,
                    action=action,
                    user_id=actor.user_id,
                    project_id=actor.project_id,
                    was=was,
                    would=would,
                )
            )


def _codes(base: type[Rejected]) -> Iterator[str]:
    yield base.code
    for kind in base.__subclasses__():
        yield from _codes(kind)


# Refusals by what can be changed; others are about things that are not as they were.
OF_RULES = frozenset((*_codes(Forbidden), *_codes(QuotaExceeded)))


def _side(record: Record) -> Side:
    verdict = record.verdict
    if isinstance(verdict, Refused):
        return Side(verdict="refused", code=verdict.code, reason=verdict.reason)
    hosts = tuple(fact.host_id for fact in record.facts if isinstance(fact, ServerPlaced))
    failed = next((f.message for f in record.facts if isinstance(f, ServerFailed)), "")
    return Side(verdict="accepted", reason=failed, hosts=hosts)


def _digits(ident: str) -> str:
    """Return an id in the form in which all that it is written in are the same."""
    return ident.replace("-", "")


def _told(record: Record) -> Any:
    verdict = record.verdict
    reply = verdict.reply if isinstance(verdict, Accepted) else {}
    return msgspec.to_builtins((record.facts, reply))


def _pairs(new: Any, old: Any, written: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each drawn id with the one that stands in its place in the record."""
    match new, old:
        case dict(), dict():
            for name in new.keys() & old.keys():
                yield from _pairs(new[name], old[name], written)
        case ((list() | tuple()), (list() | tuple())):
            for one, other in zip(new, old, strict=False):
                yield from _pairs(one, other, written)
        case str(), str() if (ident := written.get(_digits(new))) is not None:
            yield ident, _canonical(ident, old)


def _canonical(drawn: str, ident: str) -> str:
    """Return an id as it is drawn, whatever it was written as; for a MAC, one that gives it."""
    if ":" in ident:
        return drawn[:-6] + ident.replace(":", "")[-6:]
    try:
        return str(uuid.UUID(ident))
    except ValueError:
        return ident


class FullCommit(Struct, frozen=True):
    """A commit with its requests in full."""

    first: Ordinal
    at: Micros
    records: tuple[Record, ...]


decode_full = msgspec.json.Decoder(FullCommit).decode
