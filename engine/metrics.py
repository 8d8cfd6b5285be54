"""What the engine counts, and what is read of its state when its numbers are asked for.

Counting looks at records that were decided; nothing here decides, and no decision reads it.
"""

import math
from collections import Counter
from collections.abc import Iterator
from typing import get_args

from engine.bus.metrics import Reading, counter, histogram
from engine.domain.quota import DEFAULTS
from engine.domain.state import Cell
from engine.domain.usage import BY_USER, COUNTED
from engine.timers import Timers
from schemas.compute import ServerFailed, ServerPlaced
from schemas.envelope import Accepted, Record
from schemas.errors import Forbidden
from schemas.host import HostDriftDetected
from schemas.operation import OperationKind
from schemas.quota import UNLIMITED
from schemas.units import SECOND, Micros

NO_ROOM = "NoRoom"
KINDS: tuple[str, ...] = get_args(OperationKind.__value__)
DRIFT_KINDS = frozenset({"domain", "disk", "tap", "netns", "bridge", "nft", "dnsmasq"})

APPENDED = histogram(
    "cumulog_log_append_duration_seconds",
    (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
_DECIDED = counter("cumulog_request_decided_total")
_ACCEPTED, _REFUSED = _DECIDED.labels("accepted"), _DECIDED.labels("refused")
_POLICY = counter("cumulog_policy_decisions_total")
_ALLOWED, _DENIED = _POLICY.labels("allow"), _POLICY.labels("deny")
_PLACED = counter("cumulog_schedule_decisions_total")
_DRIFT = counter("cumulog_drift_total")
QUOTAS_EVERY: Micros = 15 * SECOND

# A series that is there from the beginning can be watched for its first rise.
_PLACED.labels("placed", "")
_PLACED.labels("refused", NO_ROOM)
for _kind in (*DRIFT_KINDS, "other"):
    _DRIFT.labels(_kind)


def count(record: Record) -> None:
    """Count a record that was decided."""
    verdict = record.verdict
    accepted = isinstance(verdict, Accepted)
    (_ACCEPTED if accepted else _REFUSED).inc()
    if record.request.actor.kind == "user":
        denied = not isinstance(verdict, Accepted) and verdict.code == Forbidden.code
        (_DENIED if denied else _ALLOWED).inc()
    for fact in record.facts:
        match fact:
            case ServerPlaced():
                _PLACED.labels("placed", "").inc()
            case ServerFailed() if fact.removed:
                _PLACED.labels("refused", NO_ROOM).inc()
            case HostDriftDetected():
                for found in fact.drift:
                    # A host chooses the word; what it chooses must not be many series.
                    _DRIFT.labels(found.kind if found.kind in DRIFT_KINDS else "other").inc()
            case _:
                pass


class Numbers:
    """What one leader's state says when it is asked; not by servers, so it never takes long."""

    def __init__(self, cell: Cell, timers: Timers) -> None:
        self._state = cell.state
        self._index = cell.index
        self._timers = timers
        self._quotas: list[Reading] = []
        self._quotas_due: Micros = 0

    def readings(self, now: Micros) -> list[Reading]:
        """Return them all."""
        if now >= self._quotas_due:
            # As many steps as there are projects: not each time.
            self._quotas, self._quotas_due = list(self._quota()), now + QUOTAS_EVERY
        epoch: Reading = ("cumulog_engine_epoch", (), self._state.epoch)
        return [epoch, *self._operations(now), *self._hosts(now), *self._quotas]

    def _operations(self, now: Micros) -> Iterator[Reading]:
        open_, oldest = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, now)
        for operation in self._state.operations.values():
            kind = operation.kind
            open_[kind] += 1
            oldest[kind] = min(oldest[kind], operation.accepted_at)
        for name, number in open_.items():
            yield "cumulog_request_open", (name,), number
            yield "cumulog_request_age_seconds", (name,), (now - oldest[name]) / SECOND

    def _hosts(self, now: Micros) -> Iterator[Reading]:
        limit, used = Counter[str](), Counter[str]()
        for host_id, host in self._state.hosts.items():
            seen = (now - self._timers.last_heard(host_id)) / SECOND
            yield "cumulog_executor_last_seen_seconds", (host_id,), seen
            room, held = host.capacity, self._index.host_usage.get(host_id)
            for name in ("vcpus", "memory_mib", "disk_gib"):
                limit[name] += getattr(room, name)
                used[name] += getattr(held, name) if held is not None else 0
        for name in limit:
            yield "cumulog_capacity_limit", (name,), limit[name]
            yield "cumulog_capacity_used", (name,), used[name]

    def _quota(self) -> Iterator[Reading]:
        state = self._state
        used = Counter[str]()
        for held in self._index.usage.values():
            used.update(held)
        for name in COUNTED:
            if name in BY_USER:
                continue  # Each user's own: sums over all of them tell nothing.
            common = state.quota_class.get(name, DEFAULTS[name])
            own = [limits[name] for limits in state.quotas.values() if name in limits]
            limits = [*own, *([common] if len(state.projects) > len(own) else [])]
            total = sum(own) + common * max(0, len(state.projects) - len(own))
            unlimited = UNLIMITED in limits
            yield "cumulog_quota_used", (name,), used[name]
            yield "cumulog_quota_limit", (name,), math.inf if unlimited else total
