"""What a request led to, as a tree: the request, its facts, the work they began, reports on it.

A report hangs below the work it is about, whatever else a request caused below that request.
Invariant: every request among the events stands in the tree once, below what caused it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable

import msgspec
from msgspec import Struct

from projections.answers import Event, OperationState, OperationStatus
from schemas.operation import OperationStarted

STARTED = "operation.operation.started.v1"


class WorkNode(Struct, frozen=True, kw_only=True):
    """Work that a fact began: who owns it, how it stands or ended, and the reports on it."""

    operation_id: str
    kind: str
    host_id: str
    executor: str
    generation: int
    accepted_at: int
    deadline: int
    status: OperationStatus
    ended_at: int | None
    cause: str
    reports: tuple["RequestNode", ...] = ()


class FactNode(Struct, frozen=True, kw_only=True):
    """A fact of a request; ``work`` is what it began, if it did."""

    ordinal: int
    at: int
    tag: str
    resource_kind: str
    resource_id: str
    project_id: str
    body: msgspec.Raw
    work: WorkNode | None = None


class RequestNode(Struct, frozen=True, kw_only=True):
    """A request: who asked, when and whence, what was decided by which rule, and what followed.

    ``caused`` are requests that name it as their cause and are no report on work of its own.
    """

    ordinal: int
    at: int
    submitted_at: int
    tag: str
    resource_kind: str
    resource_id: str
    project_id: str
    request_id: str
    cause: str
    actor: str
    user_id: str
    host_id: str
    roles: tuple[str, ...]
    address: str
    agent: str
    api: str
    outcome: str
    code: str
    rule: str
    reason: str
    body: msgspec.Raw
    facts: tuple[FactNode, ...]
    caused: tuple["RequestNode", ...]


class _Actor(Struct, frozen=True):
    kind: str = ""
    roles: tuple[str, ...] = ()
    host_id: str | None = None


class _Client(Struct, frozen=True):
    address: str = ""
    agent: str = ""
    api: str = ""


class _Action(Struct, frozen=True):
    operation_id: str = ""


class _Request(Struct, frozen=True):
    actor: _Actor
    action: _Action
    submitted_at: int = 0
    client: _Client = _Client()


class _Verdict(Struct, frozen=True):
    rule: str = ""
    reason: str = ""


class _Body(Struct, frozen=True):
    request: _Request
    verdict: _Verdict


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_started = msgspec.json.Decoder(OperationStarted).decode


def tree(
    request_id: str, events: Iterable[Event], operation: Callable[[str], OperationState | None]
) -> tuple[RequestNode, ...]:
    """Return the requests of an id with all that followed from them.

    An id stands for one request, unless it came again with other content.

    Args:
        request_id: whose tree it is.
        events: the request, its facts, and all that they led to.
        operation: gives an operation and how it stands.
    """
    records = _records(sorted(events, key=lambda event: event.ordinal))
    # From the last to the first: what a request caused came after it, and is there before it.
    reports: dict[str, list[RequestNode]] = defaultdict(list)
    caused: dict[str, list[RequestNode]] = defaultdict(list)
    roots: list[RequestNode] = []
    begun = {
        _decode_started(fact.body).operation.operation_id
        for _, facts in records
        for fact in facts
        if fact.tag == STARTED
    }
    for request, facts in reversed(records):
        said = _decode_body(request.body)
        node = _node(
            request,
            said,
            tuple(_fact(fact, reports, operation) for fact in facts),
            tuple(reversed(caused.pop(request.request_id, ()))),
        )
        about = said.request.action.operation_id
        if request.request_id == request_id:
            roots.append(node)
        elif about in begun:
            reports[about].append(node)
        else:
            caused[request.cause].append(node)
    return tuple(reversed(roots))


def _records(events: list[Event]) -> list[tuple[Event, list[Event]]]:
    """Return each request with the facts that come right after it."""
    records: list[tuple[Event, list[Event]]] = []
    for event in events:
        if event.kind == "request":
            records.append((event, []))
        elif records and records[-1][0].request_id == event.request_id:
            records[-1][1].append(event)
    return records


def _node(
    request: Event, said: _Body, facts: tuple[FactNode, ...], caused: tuple[RequestNode, ...]
) -> RequestNode:
    asked, verdict = said.request, said.verdict
    return RequestNode(
        ordinal=request.ordinal,
        at=request.at,
        submitted_at=asked.submitted_at,
        tag=request.tag,
        resource_kind=request.resource_kind,
        resource_id=request.resource_id,
        project_id=request.project_id,
        request_id=request.request_id,
        cause=request.cause,
        actor=asked.actor.kind,
        user_id=request.user_id,
        host_id=asked.actor.host_id or "",
        roles=asked.actor.roles,
        address=asked.client.address,
        agent=asked.client.agent,
        api=asked.client.api,
        outcome=request.outcome,
        code=request.code,
        rule=verdict.rule,
        reason=verdict.reason,
        body=request.body,
        facts=facts,
        caused=caused,
    )


def _fact(
    fact: Event,
    reports: dict[str, list[RequestNode]],
    operation: Callable[[str], OperationState | None],
) -> FactNode:
    work: WorkNode | None = None
    if fact.tag == STARTED:
        of = _decode_started(fact.body).operation
        state = operation(of.operation_id)
        work = WorkNode(
            operation_id=of.operation_id,
            kind=of.kind,
            host_id=of.host_id,
            executor=of.executor,
            generation=of.generation,
            accepted_at=of.accepted_at,
            deadline=of.deadline,
            status="running" if state is None else state.status,
            ended_at=None if state is None else state.ended_at,
            cause="" if state is None else state.cause,
            reports=tuple(reversed(reports.pop(of.operation_id, ()))),
        )
    return FactNode(
        ordinal=fact.ordinal,
        at=fact.at,
        tag=fact.tag,
        resource_kind=fact.resource_kind,
        resource_id=fact.resource_id,
        project_id=fact.project_id,
        body=fact.body,
        work=work,
    )
