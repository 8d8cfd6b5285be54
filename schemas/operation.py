"""Operations: work under way, which always ends.

Each accepted asynchronous request is an operation with an owner (an executor on a host), a
generation and a deadline. It ends in exactly one terminal fact.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.host import Executor
from schemas.ids import HostId, Id, OperationId
from schemas.units import Micros, SizeBytes

type OperationKind = Literal[
    "build", "start", "stop", "reboot", "resize", "revert", "delete", "check"
]
type ResourceKind = Literal["server", "image"]


class Operation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Work that one executor owns. ``generation`` counts attempts from 1.

    ``trace`` is the traceparent of the request that began it: reports on it belong to that trace.
    """

    operation_id: OperationId
    kind: OperationKind
    resource_kind: ResourceKind
    resource_id: str
    host_id: HostId
    executor: Executor
    generation: int
    accepted_at: Micros
    deadline: Micros
    request_id: str
    project_id: str
    trace: str = ""


class ReportOperation(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """An agent says how an operation of its own ended, and what it then saw.

    ``running`` is the domain's state for server operations. ``virtual_size_bytes`` is for image
    checks. Repeating a report changes nothing.
    """

    operation_id: Id
    generation: int
    succeeded: bool
    observed_at: Micros
    cause: Annotated[str, Meta(max_length=1024)] = ""
    running: bool = False
    virtual_size_bytes: SizeBytes = 0


class PassDeadline(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """The engine's clock: an operation's deadline has passed. From the system only."""

    operation_id: Id
    generation: int


type OperationAction = ReportOperation | PassDeadline


class OperationStarted(
    Struct, frozen=True, kw_only=True, tag="operation.operation.started.v1", tag_field="type"
):
    """Somebody owns this work until the deadline. Not metered."""

    operation: Operation


class OperationSucceeded(
    Struct, frozen=True, kw_only=True, tag="operation.operation.succeeded.v1", tag_field="type"
):
    """Terminal: done. Not metered; the resource's own fact is."""

    operation_id: OperationId
    generation: int


class OperationFailed(
    Struct, frozen=True, kw_only=True, tag="operation.operation.failed.v1", tag_field="type"
):
    """Terminal: the executor could not do it. Not metered."""

    operation_id: OperationId
    generation: int
    cause: str


class OperationCancelled(
    Struct, frozen=True, kw_only=True, tag="operation.operation.cancelled.v1", tag_field="type"
):
    """Terminal: another request made it pointless (a delete). Not metered."""

    operation_id: OperationId
    generation: int
    cause: str


class OperationTimedOut(
    Struct, frozen=True, kw_only=True, tag="operation.operation.timed_out.v1", tag_field="type"
):
    """Terminal: its deadline passed without a report. Not metered."""

    operation_id: OperationId
    generation: int


type OperationFact = (
    OperationStarted | OperationSucceeded | OperationFailed | OperationCancelled | OperationTimedOut
)
