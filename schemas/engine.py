"""The engine's own facts: who leads."""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.subjects import LOG_STREAMS_MAX
from schemas.units import Micros


class ElectLeader(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """A decider takes over: its first act. From the system only."""

    epoch: int
    node: str


class ConfirmLead(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Take a place in the log that a stopped predecessor may still lay claim to.

    A new leader's first commits: `ElectLeader` and as many of these as commits may be in flight,
    less one, stored all at once. From the system only; nothing follows from it.
    """

    epoch: int
    node: str


class RollLog(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Close the log's stream and go on in the next one, whose number is given.

    The numbers are given so that asking again, as after a crash, closes nothing more. From the
    broker's administrator only, who makes the next stream: until it is there nothing is taken.
    """

    number: Annotated[int, Meta(ge=2, le=LOG_STREAMS_MAX)]


class LeaderElected(
    Struct, frozen=True, kw_only=True, tag="engine.leader.elected.v1", tag_field="type"
):
    """From here on every commit carries this epoch. Not metered."""

    epoch: int
    node: str
    elected_at: Micros


class LogRolled(Struct, frozen=True, kw_only=True, tag="engine.log.rolled.v1", tag_field="type"):
    """The commit that holds this is its stream's last; the next lies in stream ``number``.

    Sequences and the hash chain go on without a gap. Not metered.
    """

    number: int


type EngineAction = ElectLeader | ConfirmLead | RollLog
type EngineFact = LeaderElected | LogRolled
