"""Sealed history as a thing of its own: how far it reaches, what lies where, if it is whole."""

from api.exchange import Answer, Call
from api.native.history import ANSWER_S, WALK_S, ask
from api.routing import Routes

READ = "log:history:read"


async def status(call: Call) -> Answer:
    """GET /v1/history: how far it reaches, and how much there is."""
    return await ask(call, "status", {}, ANSWER_S)


async def segments(call: Call) -> Answer:
    """GET /v1/history/segments: every file, with its checksum and place in the hash chain."""
    return await ask(call, "segments", {}, ANSWER_S)


async def seal(call: Call) -> Answer:
    """POST /v1/history/seal: seal now what was acknowledged before."""
    return await ask(call, "seal", {}, WALK_S)


async def verify(call: Call) -> Answer:
    """POST /v1/history/verify: compare with the log, byte for byte."""
    return await ask(call, "agreement", {}, WALK_S)


async def copies(call: Call) -> Answer:
    """GET /v1/history/copies: what a second place holds of it."""
    return await ask(call, "copies", {}, ANSWER_S)


async def copy(call: Call) -> Answer:
    """POST /v1/history/copies: copy now what is not there yet."""
    return await ask(call, "copy", {}, WALK_S)


async def restore(call: Call) -> Answer:
    """POST /v1/history/restore: fetch what is damaged or gone here from there, and prove it."""
    return await ask(call, "restore", {}, WALK_S)


def add(routes: Routes) -> None:
    """Route what this module answers."""
    routes.add("GET", "/v1/history", status, READ, present=True)
    routes.add("GET", "/v1/history/segments", segments, READ, present=True)
    routes.add("GET", "/v1/history/copies", copies, READ, present=True)
    routes.add("POST", "/v1/history/copies", copy, "log:history:seal")
    routes.add("POST", "/v1/history/restore", restore, "log:history:seal")
    routes.add("POST", "/v1/history/seal", seal, "log:history:seal")
    routes.add("POST", "/v1/history/verify", verify, "log:chain:verify")
