"""Price lists, as events. Money is decimal strings with an ISO 4217 code, never a float."""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.ids import Id
from schemas.metering import MeterKey, Unit
from schemas.units import Micros, Name

STANDARD = "standard"  # the price list that is used when none is named
DecimalText = Annotated[str, Meta(pattern=r"^[0-9]{1,18}(\.[0-9]{1,12})?\Z")]
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")]


class PriceRule(Struct, frozen=True, kw_only=True):
    """A price per unit of one meter."""

    sku: Id
    meter: MeterKey
    unit: Unit
    price: DecimalText


class PriceList(Struct, frozen=True, kw_only=True):
    """Exactly one rule for each meter that is to be charged. ``version`` counts from 1.

    A meter that no rule names costs nothing (``schemas.metering.ALWAYS_PRICED`` must be named).
    """

    name: Name
    version: int
    currency: Currency
    valid_from: Micros
    rules: tuple[PriceRule, ...]


class PublishPriceList(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Publish the next version of a price list; usage from ``valid_from`` on is rated by it.

    ``valid_from`` None means from this commit's time on.
    """

    name: Name = STANDARD
    currency: Currency
    rules: Annotated[tuple[PriceRule, ...], Meta(min_length=1, max_length=1000)]
    valid_from: Micros | None = None


type BillingAction = PublishPriceList


class PriceListPublished(
    Struct, frozen=True, kw_only=True, tag="billing.price_list.published.v1", tag_field="type"
):
    """Usage from the list's ``valid_from`` on is rated by it, until the next version's."""

    price_list: PriceList


type BillingFact = PriceListPublished
