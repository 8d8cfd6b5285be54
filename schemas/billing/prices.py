"""Price lists, as events. Money is decimal strings with an ISO 4217 code, never a float."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.ids import Id
from schemas.metering import DIMENSIONS_MAX, DimensionName, MeterKey, Unit
from schemas.units import Micros, Name

STANDARD = "standard"  # the price list that is used when none is named
DecimalText = Annotated[str, Meta(pattern=r"^[0-9]{1,18}(\.[0-9]{1,12})?\Z")]
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")]
DimensionValues = Annotated[
    tuple[Annotated[str, Meta(max_length=255)], ...], Meta(min_length=1, max_length=100)
]
type Model = Literal["unit", "flat", "graduated", "volume"]


class Match(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which values of a dimension a rule is for: any of these, or all except these. One is given.

    Usage that does not have the dimension has the value "".
    """

    any_of: DimensionValues | None = None
    all_except: DimensionValues | None = None

    def takes(self, value: str) -> bool:
        """Return whether the rule is for this value."""
        if self.any_of is not None:
            return value in self.any_of
        return self.all_except is None or value not in self.all_except


class Tier(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The price of units up to a quantity of the billing period; None: of all that follow."""

    up_to: DecimalText | None = None
    price: DecimalText


class PriceRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What usage of one meter costs. Quantities and amounts of a period are its customer's.

    ``match`` says which usage, by its dimensions; every dimension named must match. ``model``:

    - ``unit``: ``price`` for each ``per`` units;
    - ``flat``: ``price`` once in a period for each resource that used anything;
    - ``graduated``: each unit at the price of the tier in which it lies;
    - ``volume``: all units at the price of the tier that the period's quantity reaches.

    ``included`` units of a period are free (unit, graduated). ``minimum`` is due in a period with
    any usage; ``maximum`` is the most that a period costs.
    """

    sku: Id
    meter: MeterKey
    unit: Unit
    price: DecimalText | None = None
    match: Annotated[dict[DimensionName, Match], Meta(max_length=DIMENSIONS_MAX)] = {}
    model: Model = "unit"
    tiers: Annotated[tuple[Tier, ...], Meta(max_length=20)] = ()
    per: Annotated[int, Meta(ge=1, le=10**9)] = 1
    included: DecimalText | None = None
    minimum: DecimalText | None = None
    maximum: DecimalText | None = None


class PriceList(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Exactly one rule for whatever is to be charged. ``version`` counts from 1.

    A meter that no rule names costs nothing. Of ``schemas.metering.ALWAYS_PRICED`` each is named,
    by a rule or in ``free``.
    """

    name: Name
    version: int
    currency: Currency
    valid_from: Micros
    rules: tuple[PriceRule, ...]
    free: tuple[MeterKey, ...] = ()


class PublishPriceList(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Publish the next version of a price list; usage from ``valid_from`` on is rated by it.

    ``valid_from`` None means from this commit's time on. Whatever there could be of a meter that
    has rules must match one of them.
    """

    name: Name = STANDARD
    currency: Currency
    rules: Annotated[tuple[PriceRule, ...], Meta(min_length=1, max_length=1000)]
    valid_from: Micros | None = None
    free: Annotated[tuple[MeterKey, ...], Meta(max_length=100)] = ()


class WithdrawPriceList(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Take back a version of a price list that is not in force yet, as if it had not been.

    Its number is not given again. A list that customers are charged by keeps a version.
    """

    name: Name = STANDARD
    version: Annotated[int, Meta(ge=1)]


type PriceAction = PublishPriceList | WithdrawPriceList


class PriceListPublished(
    Struct, frozen=True, kw_only=True, tag="billing.price_list.published.v1", tag_field="type"
):
    """Usage from the list's ``valid_from`` on is rated by it, until the next version's."""

    price_list: PriceList


class PriceListWithdrawn(
    Struct, frozen=True, kw_only=True, tag="billing.price_list.withdrawn.v1", tag_field="type"
):
    """No usage was rated by this version, and none will be: the one before it goes on."""

    name: str
    version: int


type PriceFact = PriceListPublished | PriceListWithdrawn
