"""A month's lines: summed up by DuckDB where the intervals lie, their rows left there.

The rules are ``pricing``'s and ``ledger``'s, to the last digit: usage is cut at midnights, where
another begins to pay, and where a version of a price list comes into force; each piece is priced
exactly, in integers, and rounded once, half to even. Done here is what costs the same whatever else
the month has used: a price for each unit. What a rule counts over the month is left to ``pricing``,
as are meters that have changed, and only their rows are ever in memory. Invariant: the lines are
those of ``invoice`` over ``ledger``'s rows. What cannot be summed up so is refused, not guessed.
The rows behind the lines are ``drawn``'s, from the tables that are left in the database.
"""

import math
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise

import duckdb
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.domain.billing.prices import matches
from projections.holdings import Held
from projections.invoice import Line, Summed
from projections.ledger import Past, Prices, terms_of
from projections.metering import Interval
from projections.pricing import (
    EXTRA_DECIMALS,
    HUNDRED,
    Discount,
    counts,
    discount_of,
    fraction,
    text,
)
from projections.rating import SHOWN_DECIMALS
from schemas.billing import Customer, PriceList, PriceRule
from schemas.currency import decimals
from schemas.metering import ADDITIVE, MeterDefinition
from schemas.months import month_bounds
from schemas.units import DAY, Micros

_decode_dimensions = msgspec.json.Decoder(dict[str, str]).decode
_encode_dimensions = msgspec.json.Encoder().encode


class Uncountable(Exception):
    """The month cannot be summed up here; its rows are to be drawn up."""


class Tally(Struct, frozen=True, kw_only=True):
    """What was summed up: lines by customer, and what nobody pays for, by project and meter.

    ``versions`` are those of its price list that priced any of it, ``left`` the meters that were
    not looked at. ``forms`` are the lines' parts that are priced alike, in the order of the lines;
    ``number`` is how wide the numbers are that it was reckoned with.
    """

    lines: dict[str, list[Summed]]
    versions: dict[str, set[int]]
    unassigned: dict[tuple[str, str], int]
    left: frozenset[str]
    forms: tuple["Form", ...]
    number: str


class PricedBy(Struct, frozen=True, kw_only=True):
    """What a group of usage is priced by; the amounts and ``shown`` are reduced fractions.

    Without a rule nobody pays, or it costs nothing; ``too_early``: no list was in force yet.
    """

    customer_id: str
    meter: MeterDefinition
    rule: PriceRule | None
    too_early: bool
    price_list: PriceList | None
    discount: str
    places: int
    amount: tuple[int, int]
    list_amount: tuple[int, int]
    shown: tuple[int, int]

    @property
    def version(self) -> int:
        """The version of the price list; 0 without one."""
        return 0 if self.price_list is None else self.price_list.version


class Form(Struct, frozen=True, kw_only=True):
    """What a project used that is priced alike. ``number`` is that of the price, ``line`` of all.

    Lines count over all customers, in the order of these, of projects and of skus.
    """

    project_id: str
    number: int
    priced: PricedBy
    line: int


# What of intervals lies in the month, and under which days.
_USED = """
CREATE TEMP VIEW used AS
WITH known AS (
    SELECT resource_kind, resource_id, project_id, meter, dimensions, value, start_at,
        first_ordinal, aggregation = 'integral' AS integral,
        CASE WHEN last_ordinal <= {through} AND (end_at <= {end} OR aggregation <> 'integral')
            THEN end_at END AS ended,
        last_ordinal
    FROM {held}
    WHERE start_at <= {end} AND first_ordinal <= {through}
        AND (end_at IS NULL OR end_at >= {start} OR last_ordinal > {through})
        AND meter IN (SELECT meter FROM meters)
), bounded AS (
    SELECT * EXCLUDE (start_at, last_ordinal), start_at,
        greatest(start_at, {start}) AS first,
        coalesce(ended, {end}) AS last,
        CASE WHEN ended IS NULL THEN first_ordinal ELSE last_ordinal END AS last_ordinal
    FROM known
), inside AS (
    SELECT * EXCLUDE (start_at, ended) FROM bounded
    WHERE CASE WHEN integral
        THEN first < last OR (start_at >= {start} AND start_at = last AND last < {end})
        ELSE start_at >= {start} AND start_at < {end} END
), spread AS (
    SELECT *, first // {day} AS day, (greatest(first, last - 1)) // {day} AS last_day FROM inside
)
SELECT * EXCLUDE (last_day) REPLACE (unnest(range(day, last_day + 1)) AS day) FROM spread
"""

# Cut where another pays or pays by other prices, and priced, each once.
PRICED = """
WITH pieces AS (
    SELECT used.*, coalesce(payer, 0) AS payer,
        greatest(first, used.day * {day}, since) AS piece_start,
        least(last, (used.day + 1) * {day}, until) AS piece_end
    FROM used LEFT JOIN stretches
        ON stretches.project_id = used.project_id AND stretches.day = used.day
        AND first < until AND (last > since OR (first = last AND first >= since))
), measured AS (
    SELECT *, CASE WHEN integral THEN value::{number} * (piece_end - piece_start) ELSE value END
        AS quantity
    FROM pieces
), priced AS (
    SELECT measured.*, priced, tells,
        quantity::{number} * amount_by::{number} AS amount, amount_of::{number} AS amount_of,
        quantity::{number} * list_by::{number} AS list_amount, list_of::{number} AS list_of,
        quantity::{number} * shown_by::{number} AS shown, shown_of::{number} AS shown_of
    FROM measured JOIN prices
        ON prices.payer = measured.payer AND prices.meter = measured.meter
        AND prices.dimensions = CASE WHEN tells THEN measured.dimensions ELSE '' END
)
"""


def rounded(amount: str, of: str) -> str:
    """Return the expression of a quotient, rounded once, half to even."""
    half = f"2 * ({amount} % {of})"
    return (
        f"{amount} // {of} + CASE WHEN {half} > {of} "
        f"OR ({half} = {of} AND ({amount} // {of}) % 2 = 1) THEN 1 ELSE 0 END"
    )


_SUMS = f"""
{PRICED}
SELECT project_id, priced, count(*), sum(quantity), sum({rounded("amount", "amount_of")}),
    sum({rounded("shown", "shown_of")}), min(first_ordinal), max(last_ordinal), min(resource_id)
FROM priced GROUP BY ALL
"""  # noqa: S608  # our own words


def tally(
    db: duckdb.DuckDBPyConnection,
    held: Held,
    past: Past,
    month: str,
    until: Micros | None = None,
    *,
    prices: Prices | None = None,
    left_out: Collection[str] = (),
) -> Tally:
    """Sum a month up.

    Args:
        db: an empty database, to be this month's alone.
        held: what was held where ``past`` ends.
        past: what there is to know.
        month: as 2026-10.
        until: no usage from this time on; None: the whole month.
        prices: the versions of a list by which a customer is to be charged; None: of its own.
        left_out: customers that are not to be charged at all.

    Raises:
        Uncountable: something about the month needs its rows.
    """
    start, end = month_bounds(month)
    end = end if until is None else max(start, min(end, until))
    terms = {
        customer_id: terms_of(past, customer_id, month) for customer_id in past.state.customers
    }
    lists = {
        customer_id: ()
        if customer_id in left_out
        else past.state.price_lists[each.price_list]
        if prices is None
        else tuple(prices(each))
        for customer_id, each in terms.items()
    }
    simple = _simple(held, lists.values())
    left = frozenset(
        key for key, each in held.definitions.items() if each.aggregation in ADDITIVE
    ) - frozenset(simple)
    _need_own_skus(lists.values())
    payers: list[tuple[str, PriceList | None]] = [("", None)]
    stretches = list(_stretches(past, lists, start, end, payers))
    db.execute("CREATE TEMP TABLE meters (meter VARCHAR)")
    db.execute("INSERT INTO meters SELECT unnest(?)", [sorted(simple)])
    db.execute(
        _USED.format(start=start, end=end, day=DAY, through=held.as_of, held=_source(db, held))
    )
    db.execute(
        "CREATE TEMP TABLE stretches "
        "(project_id VARCHAR, day BIGINT, since BIGINT, until BIGINT, payer INTEGER)"
    )
    _insert(db, "stretches", stretches)
    priced = _price_table(db, lists, payers, terms, simple)
    sums, number = _summed(db)
    return _gathered(sums, priced, left, left_out, number)


def simple_meters(held: Held, past: Past, month: str) -> frozenset[str]:
    """Return the meters whose rows owe nothing to what else the month has used."""
    lists = [
        past.state.price_lists[terms_of(past, customer_id, month).price_list]
        for customer_id in past.state.customers
    ]
    return frozenset(_simple(held, lists))


def only(held: Held, past: Past, meters: Iterable[str]) -> Past:
    """Return the past as far as it is about some meters; of others nothing is read."""

    def intervals(start: Micros, end: Micros) -> list[Interval]:
        return [x for meter in sorted(meters) for x in held.intervals(start, end, meter=meter)]

    return replace(past, intervals=intervals)


def _simple(held: Held, lists: Iterable[Sequence[PriceList]]) -> dict[str, MeterDefinition]:
    """Return the meters that never changed and that no rule counts over the month."""
    counted = {
        rule.meter
        for versions in lists
        for version in versions
        for rule in version.rules
        if counts(rule)
    }
    return {
        key: versions[0]
        for key, versions in held.versions.items()
        if len(versions) == 1
        and (versions[0].valid_from, versions[0].valid_until) == (0, None)
        and versions[0].aggregation in ADDITIVE
        and key not in counted
    }


def _need_own_skus(lists: Iterable[Sequence[PriceList]]) -> None:
    """Refuse a sku that another version of a list has of another meter: its rows would mix."""
    for versions in lists:
        meters: dict[str, str] = {}
        for rule in (rule for version in versions for rule in version.rules):
            if meters.setdefault(rule.sku, rule.meter) != rule.meter:
                raise Uncountable(f"{rule.sku} is of two meters")


def _stretches(
    past: Past,
    lists: Mapping[str, Sequence[PriceList]],
    start: Micros,
    end: Micros,
    payers: list[tuple[str, PriceList | None]],
) -> Iterator[tuple[str, int, Micros, Micros, int]]:
    """Yield in which stretches of which day a project is paid for by whom, under which version.

    ``payers`` gets what they are numbered by; 0 is nobody.
    """
    numbers: dict[tuple[str, int], int] = {}
    for project_id, of in past.state.payers.items():
        times = [payer.since for payer in of]
        if any(after <= before for before, after in pairwise(times)):
            raise Uncountable(f"who pays for {project_id} changed twice at once")
        changes = [
            (max(start, since), min(end, ends), customer_id)
            for since, ends, customer_id in _merged(
                [(0, ""), *((p.since, p.customer_id) for p in of)]
            )
            if since < end and ends > start
        ]
        for since, ends, customer_id in changes:
            versions = lists[customer_id] if customer_id else ()
            edges = {since, ends, *range((since // DAY + 1) * DAY, ends, DAY)}
            edges |= {v.valid_from for v in versions if since < v.valid_from < ends}
            found = sorted(edges)
            for first, last in pairwise(found):
                number = 0
                if customer_id:
                    at = bisect_right([v.valid_from for v in versions], first)
                    version = versions[at - 1] if at else None
                    key = customer_id, at
                    if key not in numbers:
                        numbers[key] = len(payers)
                        payers.append((customer_id, version))
                    number = numbers[key]
                yield project_id, first // DAY, first, last, number


def _merged(changes: list[tuple[Micros, str]]) -> Iterator[tuple[Micros, Micros, str]]:
    """Yield (since, until, customer) of changes, those left out that change nothing."""
    kept = [changes[0]]
    for since, customer_id in changes[1:]:
        if since <= kept[-1][0]:
            kept[-1] = since, customer_id
        elif customer_id != kept[-1][1]:
            kept.append((since, customer_id))
    for at, (since, customer_id) in enumerate(kept):
        yield since, kept[at + 1][0] if at + 1 < len(kept) else 2**62, customer_id


def _source(db: duckdb.DuckDBPyConnection, held: Held) -> str:
    """Put what lies in no run into a table, and return what is to be read."""
    columns = (
        "resource_kind, resource_id, project_id, meter, dimensions, value, start_at, end_at, "
        "first_ordinal, last_ordinal, aggregation"
    )
    db.execute(
        "CREATE TEMP TABLE loose (resource_kind VARCHAR, resource_id VARCHAR, project_id VARCHAR, "
        "meter VARCHAR, dimensions VARCHAR, value BIGINT, start_at BIGINT, end_at BIGINT, "
        "first_ordinal BIGINT, last_ordinal BIGINT, aggregation VARCHAR)"
    )
    _insert(
        db,
        "loose",
        (
            (
                x.resource_kind, x.resource_id, x.project_id, x.meter,
                _encode_dimensions(x.dimensions).decode(), x.value, x.start, x.end,
                x.first_ordinal, x.last_ordinal, x.aggregation,
            )
            for x in held.loose
        ),
    )  # fmt: skip
    if not held.runs:
        return "loose"
    files = ", ".join("'" + str(path).replace("'", "''") + "'" for path in held.runs)
    return f"(FROM loose UNION ALL SELECT {columns} FROM read_parquet([{files}]))"  # noqa: S608  # our own files


def _insert(db: duckdb.DuckDBPyConnection, table: str, rows: Iterable[tuple[object, ...]]) -> None:
    appender = db.appender(table)
    for row in rows:
        appender.append_row(*row)
    appender.flush()


def _price_table(
    db: duckdb.DuckDBPyConnection,
    lists: Mapping[str, Sequence[PriceList]],
    payers: Sequence[tuple[str, PriceList | None]],
    terms: Mapping[str, Customer],
    simple: Mapping[str, MeterDefinition],
) -> list[PricedBy]:
    """Write which usage is priced how; return what it is numbered by."""
    db.execute(
        "CREATE TEMP TABLE prices (payer INTEGER, meter VARCHAR, dimensions VARCHAR, "
        "tells BOOLEAN, priced INTEGER, amount_by HUGEINT, amount_of HUGEINT, list_by HUGEINT, "
        "list_of HUGEINT, shown_by HUGEINT, shown_of HUGEINT)"
    )
    # Dimensions are looked at only where a rule does: few combinations, but each row is read.
    telling = {
        rule.meter
        for _, version in payers
        if version is not None
        for rule in version.rules
        if rule.match and rule.meter in simple
    }
    kinds: dict[str, list[str]] = {}
    if telling:
        rows = db.execute(
            "SELECT DISTINCT meter, dimensions FROM used WHERE meter IN (SELECT unnest(?))",
            [sorted(telling)],
        ).fetchall()
        for meter, dimensions in rows:
            kinds.setdefault(meter, []).append(dimensions)
    priced: list[PricedBy] = []
    rows_: list[tuple[object, ...]] = []
    for number, (customer_id, version) in enumerate(payers):
        versions = lists[customer_id] if customer_id else ()
        named = {rule.meter for each in versions for rule in each.rules}
        for meter, definition in simple.items():
            too_early = bool(customer_id) and version is None and meter in named
            tells = version is not None and meter in telling
            for dimensions in kinds.get(meter, []) if tells else [""]:
                rule = _rule(version, meter, _decode_dimensions(dimensions) if tells else {})
                each = _priced(customer_id, definition, version, rule, terms)
                each = replace(each, too_early=too_early)
                rows_.append(
                    (
                        number,
                        meter,
                        dimensions,
                        tells,
                        len(priced),
                        *each.amount,
                        *each.list_amount,
                        *each.shown,
                    )
                )
                priced.append(each)
    _insert(db, "prices", rows_)
    return priced


def _rule(version: PriceList | None, meter: str, dimensions: dict[str, str]) -> PriceRule | None:
    rules = () if version is None else version.rules
    return next((r for r in rules if r.meter == meter and matches(r, dimensions)), None)


def _priced(
    customer_id: str,
    definition: MeterDefinition,
    version: PriceList | None,
    rule: PriceRule | None,
    terms: Mapping[str, Customer],
) -> PricedBy:
    free = PricedBy(
        customer_id=customer_id,
        meter=definition,
        rule=None,
        too_early=False,
        price_list=None,
        discount="",
        places=0,
        amount=(0, 1),
        list_amount=(0, 1),
        shown=_reduced(10**SHOWN_DECIMALS, definition.base_per_unit),
    )
    if version is None or rule is None:
        return free
    assert rule.price is not None, "checked when it was published"
    places = decimals(version.currency) + EXTRA_DECIMALS
    numerator, denominator = fraction(rule.price)
    numerator, denominator = (
        numerator * 10**places,
        denominator * definition.base_per_unit * rule.per,
    )
    full = less = _reduced(numerator, denominator)
    of = [Discount(percent=d.percent, sku=d.sku) for d in terms[customer_id].discounts]
    if discount := discount_of(rule.sku, of):
        off, hundred = fraction(text(HUNDRED - Decimal(discount)))
        less = _reduced(numerator * off, denominator * hundred * 100)
    return replace(
        free,
        rule=rule,
        price_list=version,
        discount=discount,
        places=places,
        amount=less,
        list_amount=full,
    )


def _reduced(numerator: int, denominator: int) -> tuple[int, int]:
    common = math.gcd(numerator, denominator)
    return numerator // common, denominator // common


type _Sum = tuple[str, int, int, int, int, int, int, int, str]


def _summed(db: duckdb.DuckDBPyConnection) -> tuple[list[_Sum], str]:
    """Sum up, in numbers as wide as they must be: DuckDB refuses what would not fit."""
    for number in ("BIGINT", "HUGEINT"):
        try:
            return db.execute(_SUMS.format(day=DAY, number=number)).fetchall(), number
        except (duckdb.OutOfRangeException, duckdb.ConversionException):
            continue
    raise Uncountable("its numbers are larger than a database reckons with")


def _gathered(
    sums: Sequence[_Sum],
    priced: Sequence[PricedBy],
    left: frozenset[str],
    left_out: Collection[str],
    number: str,
) -> Tally:
    unassigned: dict[tuple[str, str], int] = {}
    lines: dict[str, list[Summed]] = {}
    groups: dict[tuple[str, str, str], list[tuple[_Sum, PricedBy, PriceRule]]] = {}
    for found in sums:
        of = priced[found[1]]
        if of.customer_id in left_out:
            continue
        if of.too_early:
            raise Uncountable("there is usage from before any price list was in force")
        if of.customer_id:
            lines.setdefault(of.customer_id, [])
        if not of.customer_id:
            key = found[0], of.meter.key
            unassigned[key] = unassigned.get(key, 0) + int(found[3])
        elif of.rule is not None:
            line = of.customer_id, found[0], of.rule.sku
            groups.setdefault(line, []).append((found, of, of.rule))
    versions: dict[str, set[int]] = {}
    forms: list[Form] = []
    for at, ((customer_id, project_id, sku), parts) in enumerate(sorted(groups.items())):
        # Of one resource what is used under an earlier version comes first.
        parts.sort(key=lambda part: (part[0][8], part[1].version))
        _, first, rule = parts[0]
        versions.setdefault(customer_id, set()).update(of.version for _, of, _ in parts)
        units = sum(int(found[5]) for found, _, _ in parts)
        cost = sum(int(found[4]) for found, _, _ in parts)
        line_ = Line(
            line=0,
            category="Usage",
            project_id=project_id,
            sku=sku,
            description=sku,
            quantity=text(Decimal(f"{units}E-{SHOWN_DECIMALS}")),
            unit=rule.unit,
            prices=tuple(dict.fromkeys(rule.price or "" for _, _, rule in parts)),
            amount=text(Decimal(f"{cost}E-{first.places}")),
            rows=sum(found[2] for found, _, _ in parts),
            first_ordinal=min(found[6] for found, _, _ in parts),
            last_ordinal=max(found[7] for found, _, _ in parts),
        )
        lines[customer_id].append(Summed(line=line_, at=at))
        forms += (
            Form(project_id=project_id, number=found[1], priced=of, line=at)
            for found, of, _ in parts
        )
    return Tally(
        lines=lines,
        versions=versions,
        unassigned=unassigned,
        left=left,
        forms=tuple(forms),
        number=number,
    )
