"""The engine's own facts: who leads."""

from msgspec import Struct

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


class LeaderElected(
    Struct, frozen=True, kw_only=True, tag="engine.leader.elected.v1", tag_field="type"
):
    """From here on every commit carries this epoch. Not metered."""

    epoch: int
    node: str
    elected_at: Micros


type EngineAction = ElectLeader | ConfirmLead
type EngineFact = LeaderElected
