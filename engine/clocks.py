"""Two clocks: the time somebody claims, and the time of the commit, which never goes back. Pure.

A claim is believed within bounds. One from the future is refused, since it could end an interval
after the commit that says so. One from long ago is taken, flagged, and clamped where it bounds an
interval. A person's request that has been on its way for longer than its answer would be remembered
is refused: it may be a repetition, and nobody could tell.
"""

from typing import Any

from msgspec.structs import fields

from engine.domain.fold import ANSWERED_FOR
from schemas.envelope import Request, action_types
from schemas.errors import ClockAhead, TooOld
from schemas.units import MINUTE, SECOND, Micros

AHEAD_MAX: Micros = 5 * MINUTE
BEHIND_MAX: Micros = 15 * MINUTE

# What an agent says it saw, and when.
OBSERVATIONS = frozenset(
    kind
    for kind in action_types().values()
    if any(field.name == "observed_at" for field in fields(kind))
)


def need_no_future(request: Request, now: Micros) -> None:
    """Return if nothing that the request claims lies far in the future of ``now``.

    Raises:
        ClockAhead: it does; the reason names both times and the skew.
    """
    if request.submitted_at > now + AHEAD_MAX:
        raise _ahead("was submitted", request.submitted_at, now)
    action: Any = request.action
    if type(action) in OBSERVATIONS and action.observed_at > now + AHEAD_MAX:
        raise _ahead("observed this", action.observed_at, now)


def need_recent(request: Request, clock: Micros) -> None:
    """Return if a repetition of the request would still be known for one.

    Reports of agents are always taken: told twice they change nothing. Call it with what is no
    known repetition, and with the clock itself: the log's time can be ahead of it, after the clock
    was set back, and would refuse everybody for as long.

    Raises:
        TooOld: it would not.
    """
    behind = clock - request.submitted_at
    if behind > ANSWERED_FOR and request.actor.kind == "user":
        raise TooOld(
            f"the request was submitted at {request.submitted_at}, it is {clock} now: "
            f"{_seconds(behind)} s ago, and answers are remembered for {_seconds(ANSWERED_FOR)} s",
            submitted_at=request.submitted_at,
            now=clock,
            skew_s=_seconds(behind),
        )


def late_by_s(action: object, now: Micros) -> int:
    """Return by how many seconds an observation is late beyond the usual, 0 if it is not."""
    if type(action) not in OBSERVATIONS:
        return 0
    behind: Micros = now - action.observed_at  # type: ignore[attr-defined]  # all of those have it
    return _seconds(behind) if behind > BEHIND_MAX else 0


def _ahead(what: str, claimed: Micros, now: Micros) -> ClockAhead:
    skew_s = _seconds(claimed - now)
    return ClockAhead(
        f"whoever {what} claims the time {claimed}, the log is at {now}: {skew_s} s ahead, "
        f"at most {_seconds(AHEAD_MAX)} s are believed",
        claimed=claimed,
        now=now,
        skew_s=skew_s,
    )


def _seconds(span: Micros) -> int:
    return span // SECOND
