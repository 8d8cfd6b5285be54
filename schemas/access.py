"""What was asked over HTTP, mutation or not, and by whom: the entries of stream ``ACCESS``.

And the one action that an edge has of its own: to put on record a mutation that it refused itself.

An edge counts what was alike within a second as one entry and sends all entries of that second as
one message. Beside ``LOG``, which has every mutation with its verdict, it is the record of reads
and of those who were not let in. Invariant: an entry holds ids, our own words and what the client
says of itself, cut short; never a token, a password, a query or a body.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from schemas.units import Micros, Ordinal

DAYS_MAX = 90  # kept for as long, unless ``BYTES_MAX`` is reached before
BYTES_MAX = 1 * 2**30

# "": one kind of request, told whole. The others gather what was over a limit: of one user or
# address ("owner"), of all users ("users"), of all who were not let in ("nobody").
type Gathered = Literal["", "owner", "users", "nobody"]


class AccessEntry(Struct, kw_only=True, omit_defaults=True, gc=False):
    """Requests that were alike, within one second at one edge.

    ``route`` is a template (``/v2.1/servers/{}``), "" where there is none; ``about`` is what stood
    in the place of its braces. ``action`` is what the policy calls it, ``rule`` the entry that
    decided. ``request_id`` is that of the first. ``ordinal`` is that of a mutation's record in the
    log: of its own, or, where it was ``repeated`` under one key, of the first. ``reason`` says, in
    words of our own, why nobody was let in. Not frozen: an edge counts in it.
    """

    at: Micros  # of the first
    request_id: str
    status: int
    count: int = 1
    total_us: int = 0  # how long they took, together and the longest
    max_us: int = 0
    api: str = ""
    version: str = ""
    method: str = ""
    route: str = ""
    about: tuple[str, ...] = ()
    user_id: str = ""
    project_id: str = ""
    roles: tuple[str, ...] = ()
    address: str = ""
    agent: str = ""
    action: str = ""
    rule: str = ""
    reason: str = ""
    ordinal: Ordinal = 0
    repeated: bool = False
    dry_run: bool = False
    gathered: Gathered = ""


class AccessBatch(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of the stream: what one edge answered from ``at`` to ``until``.

    ``number`` counts the messages of one start (``boot``) of the edge from 1, so that a missing one
    is seen. ``lost`` counts requests that were answered before and are in no message, the first of
    them at ``lost_since``. One that is ``stopping`` was told to, and may have a successor beside it
    already; after the ``last`` one it has stopped in order. Without that, what it answered in its
    last second may be missing.
    """

    edge: str
    boot: str
    number: int
    at: Micros
    until: Micros
    entries: tuple[AccessEntry, ...] = ()
    lost: int = 0
    lost_since: Micros = 0
    stopping: bool = False
    last: bool = False


class RefuseRequest(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Record a mutation that an edge refused before it became an action. It is always refused.

    With the code, status and reason that the client was told, and without its body, which nobody
    understood and which may hold a secret. ``action`` is what the route would have done, "" if only
    the body could have said; ``about`` what the path named. Edges submit it for whom they have let
    in, and nobody else may.
    """

    api: Annotated[str, Meta(max_length=32)]
    method: Annotated[str, Meta(max_length=16)]
    route: Annotated[str, Meta(max_length=255)]
    code: Annotated[str, Meta(min_length=1, max_length=64)]
    status: Annotated[int, Meta(ge=400, lt=500)]
    reason: Annotated[str, Meta(max_length=1024)]
    action: Annotated[str, Meta(max_length=64)] = ""
    about: Annotated[tuple[Annotated[str, Meta(max_length=255)], ...], Meta(max_length=16)] = ()
    rule: Annotated[str, Meta(max_length=1024)] = ""


type AccessAction = RefuseRequest

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(AccessBatch).decode
