"""Quotas: how much of each thing a project may hold.

A limit is a whole number, -1 for none. A project has limits of its own, else those of the class
``default``, else those that Cumulog comes with (``engine.domain.quota``). Limits are looked at when
something is asked for and at no other time: what is held stays, however low a limit is set.
"""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.ids import Id, ProjectId

UNLIMITED = -1
Limit = Annotated[int, Meta(ge=UNLIMITED, le=2**53 - 1)]
QuotaName = Annotated[str, Meta(min_length=1, max_length=64)]
Limits = Annotated[dict[QuotaName, Limit], Meta(max_length=64)]


class SetQuota(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Give a project limits of its own; those not named stay.

    ``check_limit`` refuses a limit below what the project holds now.
    """

    project_id: Id
    limits: Limits
    check_limit: bool = False


class ResetQuota(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Take limits of its own from a project; no names means all of them."""

    project_id: Id
    names: Annotated[tuple[QuotaName, ...], Meta(max_length=64)] = ()


class SetQuotaClass(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Set limits for every project that has none of its own; those not named stay."""

    limits: Limits


type QuotaAction = SetQuota | ResetQuota | SetQuotaClass


class QuotaSet(Struct, frozen=True, kw_only=True, tag="quota.project.set.v1", tag_field="type"):
    """From now on these limits hold for the project; others stay. Not metered."""

    project_id: ProjectId
    limits: dict[str, int]


class QuotaReset(Struct, frozen=True, kw_only=True, tag="quota.project.reset.v1", tag_field="type"):
    """The project's own limits of these names are gone; the class's hold. Not metered."""

    project_id: ProjectId
    names: tuple[str, ...]


class QuotaClassSet(Struct, frozen=True, kw_only=True, tag="quota.class.set.v1", tag_field="type"):
    """From now on these limits hold where a project has none of its own. Not metered."""

    limits: dict[str, int]


type QuotaFact = QuotaSet | QuotaReset | QuotaClassSet
