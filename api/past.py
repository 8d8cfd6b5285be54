"""Reads as of a moment: who may, which moment is meant, and an edge that reads there.

``as_of`` (a query parameter, or the header ``X-Cumulog-As-Of``) is an ordinal or a time. What
answers is the same handler on an edge whose reader is that of the moment, so that nothing it finds
can have come later. Invariant: the caller may do it by today's rules and roles *and* by those of
then, and reaches only what both reach; what cannot be asked about the past is refused, never
answered with the present.
"""

from collections import Counter, OrderedDict
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, field

from api.auth import now
from api.compute.rendered import Rendered
from api.errors import Denied, TooManyRequests
from api.nobody import Nobody
from api.times import parse_time
from engine.bus.client import (
    REQUEST_HEADER,
    TRACE_HEADER,
    BusError,
    BusTimeout,
    FellSilent,
    NoResponders,
)
from engine.domain.context import Reach
from engine.domain.identity.directory import roles_on
from engine.policy import Policies
from projections.access import access_path
from projections.runner import read_model_path
from projections.timemachine.moments import BeforeFirstEvent, InTheFuture, Moment
from projections.timemachine.past import PastAccess, PastReader
from projections.timemachine.worker import Asked, Told, decode_told, encode
from schemas.envelope import Refused
from schemas.errors import Forbidden, InvalidInput, Unavailable
from schemas.identity import SYSTEM
from schemas.policy import PolicyTable
from schemas.units import Micros, Ordinal

if TYPE_CHECKING:
    from api.edge import Edge
    from api.exchange import Call
    from api.routing import Route

READS = frozenset({"GET", "HEAD"})
EDGES_MAX = 16
KNOWN_MAX = 4096
BUILD_S = 25.0  # how long a client waits for a moment; it goes on being built
BUILDING_MAX = 4  # moments that one user may wait for at once
# What was decided at a time may take so long until it is in the log.
IN_FLIGHT_NS = 1_000_000_000


class PastIsPast(Forbidden):
    """This is a cloud of the past (``api.then``)."""

    code = "PastIsPast"
    hint = "Ask the present cloud."


class Pasts(Struct):
    """What one edge knows of moments, and the edges that read there. All bounded."""

    edges: "OrderedDict[tuple[Ordinal, Micros], Edge]" = field(default_factory=OrderedDict)
    ends: dict[Ordinal, Ordinal] = field(default_factory=dict)  # the commit's end, by ordinal
    building: Counter[str] = field(default_factory=Counter)  # by user

    def close(self) -> None:
        """Let go of all files."""
        while self.edges:
            self.edges.popitem()[1].reader.close()


class Then(Struct, frozen=True):
    """What a caller was allowed at a moment, beside what it is now.

    ``now`` is the edge that reads the present.
    """

    now: "Edge"
    past: "Edge"
    roles: frozenset[str]

    def narrowed(self, call: "Call", action: str, today: Reach) -> Reach | None:
        """Return how far both go, today's rules and those of then; None: then not at all."""
        then = self.past.policy().reach(action, call.principal.scope, self.roles)
        if then is None:
            return None
        return Reach(
            rule=today.rule,
            any=today.any and then.any,
            project=(today.any or today.project) and (then.any or then.project),
            domain=(today.any or today.domain) and (then.any or then.domain),
            user=(today.any or today.user) and (then.any or then.user),
        )


def require_askable(call: "Call", route: "Route") -> None:
    """Refuse ``as_of`` where there is no answer to it.

    Raises:
        InvalidInput: the route changes something, or tells of the present alone.
    """
    if call.method not in READS:
        raise InvalidInput("only reads are answered as of a moment: what is past cannot change")
    if route.public or route.present:
        raise InvalidInput(f"{route.path or '/'} cannot be asked as of a moment")


def require_readable(call: "Call", route: "Route") -> None:
    """Let pass, in a cloud of the past, only what reads what was there then.

    Raises:
        PastIsPast: it changes something, or asks what only the present knows.
    """
    here = f"this is the cloud as of ordinal {call.edge.past}"
    if call.method not in READS:
        raise PastIsPast(f"{here}: nothing can be changed in it")
    if call.as_of:
        raise PastIsPast(f"{here}, and of no other moment")
    if route.present and call.api != "identity":  # its tokens are its own
        raise PastIsPast(f"{here}, which knows nothing of {route.path}")


async def enter(call: "Call") -> None:
    """Have a call answered as of the moment that it asks for.

    Raises:
        InvalidInput: it is no moment, or one before the first event or in the future.
        Forbidden: the caller was not there then.
        Unavailable: the moment cannot be built now, or not in time.
    """
    edge = call.edge
    ordinal, at = await meant(edge, call.as_of)
    past = await _edge(call, ordinal, at)
    call.then = Then(edge, past, _roles(call, past))
    call.edge = past
    call.position = past.reader.position()


async def meant(edge: "Edge", asked: str) -> tuple[Ordinal, Micros | None]:
    """Return the last ordinal that is meant, and the time if it was asked for by one.

    Raises:
        InvalidInput: it is no moment, or one before the first event or in the future.
        Unavailable: this node cannot know what was so then.
    """
    if asked.isascii() and asked.isdecimal() and len(asked) <= 16:
        ordinal = int(asked)
        if ordinal > edge.reader.position():
            await edge.freshness.whole_since(monotonic_ns())
        if ordinal > (position := edge.reader.position()):
            raise InTheFuture(f"the log ends at ordinal {position}: {ordinal} is yet to come")
        if ordinal < 1:
            raise BeforeFirstEvent("ordinals begin at 1")
        return ordinal, None
    try:
        at = parse_time(asked)
    except (ValueError, OverflowError):
        raise InvalidInput(
            "the moment (as_of) must be an ordinal, or a time of ISO 8601 (UTC without a zone)"
        ) from None
    ago = now() - at
    if ago < 0:
        raise InTheFuture(f"{asked} is yet to come")
    if edge.reader.head().at <= at:
        # What was decided by then may not be in the log yet, or not in the read model.
        await edge.freshness.whole_since(monotonic_ns() - ago * 1000 + IN_FLIGHT_NS)
    ordinal = edge.reader.first_at(at + 1) - 1
    if ordinal < 1:
        raise BeforeFirstEvent(f"nothing had happened yet at {asked}")
    return ordinal, at


async def _edge(call: "Call", ordinal: Ordinal, at: Micros | None) -> "Edge":
    """Return an edge that reads at a moment; one that is kept, or a new one."""
    edge, pasts = call.edge, call.edge.pasts
    end = pasts.ends.get(ordinal, ordinal)
    key = end, at or 0
    kept = pasts.edges.get(key)
    if kept is not None:
        if _is_there(kept, end):
            pasts.edges.move_to_end(key)
            return kept
        pasts.edges.pop(key).reader.close()
    moment = (await told(call, Asked(ordinal=ordinal))).moment
    assert moment is not None, "a question for a moment is answered with one"
    if len(pasts.ends) >= KNOWN_MAX:
        pasts.ends.clear()
    pasts.ends[ordinal] = moment.ordinal
    key = moment.ordinal, at or 0
    found = pasts.edges.get(key)
    if found is None:
        found = pasts.edges[key] = _past(edge, moment, moment.at if at is None else at)
    pasts.edges.move_to_end(key)
    while len(pasts.edges) > EDGES_MAX:
        pasts.edges.popitem(last=False)[1].reader.close()
    if found.reader.position() != moment.ordinal:
        raise Unavailable("the read model of that moment is not there any more", retry_after=1)
    return found


def _is_there(past: "Edge", end: Ordinal) -> bool:
    """Return whether any thread can read a moment: who has its file open can when it is gone."""
    reader = past.reader
    assert isinstance(reader, PastReader), "it reads a moment"
    return Path(reader.moment.file).exists() and reader.position() == end


def _past(edge: "Edge", moment: Moment, at: Micros) -> "Edge":
    return msgspec.structs.replace(
        edge,
        bus=Nobody(edge.config.cell, InvalidInput, "this cannot be asked as of a moment"),
        reader=PastReader(read_model_path(edge.config), moment, at),
        audit=PastAccess(access_path(edge.config), at),
        rendered=Rendered(),
        policies=Policies(),
        policy_table=PolicyTable(),
        policy_at=-1,
    )


async def told(call: "Call", asked: Asked, *, timeout_s: float = BUILD_S) -> Told:
    """Ask the node's projector for a moment, or for what lies between two.

    Raises:
        Unavailable: it does not answer, or not in time.
        TooManyRequests: the caller waits for too many already.
        Denied: it cannot be built; the reason says why.
    """
    edge, user_id = call.edge, call.principal.user_id
    building = edge.pasts.building
    if building[user_id] >= BUILDING_MAX:
        raise TooManyRequests(f"a user may wait for {BUILDING_MAX} moments at once", retry_after=1)
    building[user_id] += 1
    try:
        raw = await edge.bus.request(
            edge.bus.subjects.moment(edge.config.node),
            encode(asked),
            timeout_s=timeout_s,
            silent_s=edge.config.history_silent_s,
            headers={TRACE_HEADER: call.trace, REQUEST_HEADER: call.request_id},
        )
    except NoResponders as error:
        raise Unavailable("the projector is not running") from error
    except FellSilent as error:
        raise Unavailable("the projector gives no sign of life", retry_after=5) from error
    except BusTimeout as error:
        raise Unavailable("that moment is being built; ask again", retry_after=5) from error
    except BusError as error:
        raise Unavailable("the projector cannot be reached") from error
    finally:
        building[user_id] -= 1
        if not building[user_id]:
            del building[user_id]
    answer = decode_told(raw)
    if answer.error is not None:
        raise Denied(msgspec.convert(msgspec.to_builtins(answer.error), Refused))
    return answer


def _roles(call: "Call", past: "Edge") -> frozenset[str]:
    """Return the roles that the caller's account had then, in the scope of its token.

    Raises:
        Forbidden: it was not there, or was disabled; or its scope was.
    """
    reader, token = past.reader, call.principal.token
    user_id = token.user_id
    if token.trust_id:
        trust = call.edge.reader.trust(token.trust_id)
        user_id = user_id if trust is None else trust.trustor_user_id
    for one in {token.user_id, user_id}:
        user = reader.user(one)
        domain = None if user is None else reader.domain(user.domain_id)
        if user is None or not user.enabled or domain is None or not domain.enabled:
            raise Forbidden("your account was not there then, or was disabled")
    if token.project_id:
        project = reader.project(token.project_id)
        if project is None or not project.enabled:
            raise Forbidden("your project was not there then, or was disabled")
    if token.domain_id:
        domain = reader.domain(token.domain_id)
        if domain is None or not domain.enabled:
            raise Forbidden("your domain was not there then, or was disabled")
    target = SYSTEM if token.system else token.project_id or token.domain_id
    return roles_on(reader, user_id, target) if target else frozenset()
