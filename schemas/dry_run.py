"""What the engine answers when a request is tried and not carried out."""

from msgspec import Struct

from schemas.billing import PriceList
from schemas.envelope import Accepted, Fact, Refused
from schemas.quota import UNLIMITED
from schemas.units import Micros, Ordinal


class QuotaUse(Struct, frozen=True, kw_only=True):
    """How much of one thing a project holds; ``limit`` -1 means that there is none."""

    used: int
    limit: int = UNLIMITED


class DryRun(Struct, frozen=True, kw_only=True):
    """What would have followed, had the request come for good at this ordinal and time.

    ``reasons`` are sentences for people: why it is refused, or where a server goes and why.
    ``quota_after`` is what the asker's project would hold once the facts were written, by
    names that end in their unit. ``price_list`` is the version in force, if there is one.
    """

    ordinal: Ordinal
    at: Micros
    verdict: Accepted | Refused
    facts: tuple[Fact, ...] = ()
    reasons: tuple[str, ...] = ()
    quota_after: dict[str, QuotaUse] = {}
    price_list: PriceList | None = None
