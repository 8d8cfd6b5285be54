"""The whole log, what was signed of it, and proofs.

An export streams from the log itself; the archiver says where it is signed. Nothing is kept in
memory but what is under way.
"""

import contextlib
from collections.abc import AsyncGenerator

import msgspec
from msgspec import Struct

from api.exchange import Answer, Call
from api.native.history import WALK_S, ask
from api.routing import Routes
from engine.log.jetstream import JetStreamLog
from projections.history import History, history_path
from schemas.errors import Unavailable

LINES = b"application/jsonl"
READ, MAKE = "log:proofs:read", "log:proofs:make"


class _Signed(Struct, frozen=True):
    sequence: int
    ordinal: int


class _Statements(Struct, frozen=True):
    lines: tuple[tuple[int, str], ...]
    more: bool = False


class _About(Struct, frozen=True):
    """What of a statement says where it belongs."""

    statement: _Signed


_decode_signed = msgspec.json.Decoder(_Signed).decode
_decode_statements = msgspec.json.Decoder(_Statements).decode
_decode_about = msgspec.json.Decoder(_About).decode


async def export(call: Call) -> Answer:
    """GET /v1/log/export: all commits, a line each, with the checkpoints that sign them."""
    signed = _decode_signed((await ask(call, "checkpoint", {}, WALK_S)).body)
    first = await _statements(call, 0, signed.sequence)
    return Answer(
        200,
        content_type=LINES,
        headers=[(b"cache-control", b"no-store")],
        stream=_lines(call, first, signed.sequence),
    )


async def _lines(call: Call, page: _Statements, through: int) -> AsyncGenerator[bytes]:
    """Yield the lines of an export up to a sequence that is signed."""
    archived = History(history_path(call.edge.config)).commits_after
    source = JetStreamLog(call.edge.bus, archived=archived).read_batches(0)
    due = list(page.lines)
    async with contextlib.aclosing(source) as batches:
        async for batch in batches:
            lines: list[bytes] = []
            for commit in batch:
                lines.append(commit.data + b"\n")
                while due and due[0][0] <= commit.seq:
                    line = due.pop(0)[1].encode()
                    lines.append(line + b"\n")
                    if not due and page.more:
                        after = _decode_about(line).statement.ordinal
                        page = await _statements(call, after, through)
                        due = list(page.lines)
                if commit.seq >= through:
                    break
            yield b"".join(lines)
            if batch[-1].seq >= through:
                return
    # Whoever reads sees no signed end, and so that it is not all.
    raise Unavailable("the log ends before what was signed of it")


async def _statements(call: Call, after: int, through: int) -> _Statements:
    answer = await ask(call, "checkpoints", {"after": after, "through": through}, WALK_S)
    return _decode_statements(answer.body)


async def checkpoint(call: Call) -> Answer:
    """POST /v1/log/checkpoint: sign how far the log has come."""
    return await ask(call, "checkpoint", {}, WALK_S)


async def key(call: Call) -> Answer:
    """GET /v1/log/key: the public keys that checkpoints are checked with."""
    return await ask(call, "key", {}, WALK_S)


async def proof(call: Call) -> Answer:
    """GET /v1/log/proof/{request id or ordinal}: that one record is in the log."""
    return await ask(call, "proof", {"of": call.args[0]}, WALK_S)


def add(routes: Routes) -> None:
    """Route what this module answers."""
    routes.add(
        "GET", "/v1/log/export", export, "log:export:read", gives=LINES.decode(), present=True
    )
    routes.add("POST", "/v1/log/checkpoint", checkpoint, MAKE)
    routes.add("GET", "/v1/log/key", key, READ, present=True)
    routes.add("GET", "/v1/log/proof/{}", proof, READ, present=True)
