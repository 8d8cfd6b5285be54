"""Read model of operations: one row each, from its start to its one terminal fact."""

import msgspec

from projections.answers import OperationState, OperationStatus
from projections.store import Table, Writer
from schemas import operation as s
from schemas.units import Micros, Ordinal

NAME = "operation"
VERSION = 1

TIMED_OUT = "no report before the deadline"
ENDS: dict[type, OperationStatus] = {
    s.OperationSucceeded: "succeeded",
    s.OperationFailed: "failed",
    s.OperationCancelled: "cancelled",
    s.OperationTimedOut: "timed_out",
}

OPERATIONS = Table(
    "operations",
    OperationState,
    columns="id TEXT NOT NULL, resource_id TEXT NOT NULL, project_id TEXT NOT NULL, "
    "request_id TEXT NOT NULL, status TEXT NOT NULL, started_at INTEGER NOT NULL, "
    "ended_at INTEGER",
    values=lambda o: (
        o.operation.operation_id,
        o.operation.resource_id,
        o.operation.project_id,
        o.operation.request_id,
        o.status,
        o.operation.accepted_at,
        o.ended_at,
    ),
    indexes=("(resource_id)",),
)

STATEMENTS = OPERATIONS.create


def _started(writer: Writer, fact: s.OperationStarted, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(OPERATIONS, OperationState(operation=fact.operation, status="running"), ordinal)


type End = s.OperationSucceeded | s.OperationFailed | s.OperationCancelled | s.OperationTimedOut


def _ended(writer: Writer, fact: End, ordinal: Ordinal, at: Micros) -> None:
    state = writer.need(OPERATIONS, fact.operation_id)
    match fact:
        case s.OperationFailed() | s.OperationCancelled():
            cause = fact.cause
        case s.OperationTimedOut():
            cause = TIMED_OUT
        case s.OperationSucceeded():
            cause = ""
    end = msgspec.structs.replace(state, status=ENDS[type(fact)], ended_at=at, cause=cause)
    writer.put(OPERATIONS, end, ordinal)


APPLY = {
    s.OperationStarted: _started,
    s.OperationSucceeded: _ended,
    s.OperationFailed: _ended,
    s.OperationCancelled: _ended,
    s.OperationTimedOut: _ended,
}
