"""A month's lines: summed up by DuckDB where the intervals lie, their rows left there.

The rules are ``pricing``'s and ``ledger``'s, to the last digit: usage is cut at midnights, where
another begins to pay, and where a version of a price list comes into force; each piece is priced
exactly, in integers, and rounded once, half to even. What a rule counts over the month (tiers, what
is included, a maximum) is counted in ``pricing``'s order. Left to ``pricing`` are meters that have
changed, and skus whose versions count otherwise; only their rows are ever in memory. Invariant: the
lines are those of ``invoice`` over ``ledger``'s rows. What cannot be summed up so is refused, not
guessed. The rows behind the lines are ``drawn``'s, from the tables that are left in the database.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise

import duckdb
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from projections.holdings import Held
from projections.invoice import Line, Summed
from projections.ledger import Past, Prices, Row, row_of, terms_of
from projections.metering import Interval, Usage
from projections.pieces import ACCOUNTS, KINDS, MATCHED, SUMS, TOTALS, USED, query_of
from projections.price_table import (
    PricedBy,
    Step,
    at_total,
    counted_otherwise,
    minimum_units,
    priced_by,
    rule_of,
)
from projections.pricing import counts, minimum_part, text
from projections.rating import SHOWN_DECIMALS
from schemas.billing import Customer, PriceList, PriceRule
from schemas.metering import ADDITIVE, MeterDefinition
from schemas.months import month_bounds
from schemas.units import DAY, Micros

NUMBER_MAX = 2**126  # with room for twice a rest
_decode_dimensions = msgspec.json.Decoder(dict[str, str]).decode
_encode_dimensions = msgspec.json.Encoder().encode


class Uncountable(Exception):
    """The month cannot be summed up here; its rows are to be drawn up."""


class Tally(Struct, frozen=True, kw_only=True):
    """What was summed up: lines by customer, and what nobody pays for, by project and meter.

    ``versions`` are those of its price list that priced any of it, ``left`` the meters that were
    not looked at. ``forms`` are the lines' parts that are priced alike, in the order of the lines,
    ``minimums`` the rows of what a month lacks. ``charged`` is the query of all pieces, which has
    {number}: how wide the numbers are.
    """

    lines: dict[str, list[Summed]]
    versions: dict[str, set[int]]
    unassigned: dict[tuple[str, str], int]
    left: frozenset[str]
    forms: tuple["Form", ...]
    minimums: dict[str, list[Row]]
    charged: str
    number: str


class Form(Struct, frozen=True, kw_only=True):
    """What a project used that is priced alike. ``number`` is that of the price, ``line`` of all.

    Lines count over all customers, in the order of these, of projects and of skus.
    """

    project_id: str
    number: int
    priced: PricedBy
    step: Step
    line: int


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
    in_force = [_in_force(versions, start, end) for versions in lists.values()]
    _need_own_skus(in_force)
    reckoned = _reckoned(held, in_force)
    if not reckoned:
        raise Uncountable("there is no meter that it can be reckoned of")
    left = frozenset(
        key for key, each in held.definitions.items() if each.aggregation in ADDITIVE
    ) - frozenset(reckoned)
    payers: list[tuple[str, PriceList | None]] = [("", None)]
    stretches = list(_stretches(past, lists, start, end, payers))
    # Intervals of versions that were not known yet lie there too.
    db.execute("CREATE TEMP TABLE meters (meter VARCHAR, version INTEGER)")
    _insert(db, "meters", ((key, each.version) for key, each in sorted(reckoned.items())))
    db.execute(
        USED.format(start=start, end=end, day=DAY, through=held.as_of, held=_source(db, held))
    )
    db.execute(
        "CREATE TEMP TABLE stretches "
        "(project_id VARCHAR, day BIGINT, since BIGINT, until BIGINT, payer INTEGER)"
    )
    _insert(db, "stretches", stretches)
    priced = _price_table(db, lists, payers, terms, reckoned)
    for number in ("BIGINT", "HUGEINT"):
        try:
            return _tally(db, priced, month, left, left_out, number)
        except (duckdb.OutOfRangeException, duckdb.ConversionException):
            continue  # wider numbers may do
    raise Uncountable("its numbers are larger than a database reckons with")


def _tally(
    db: duckdb.DuckDBPyConnection,
    priced: Sequence[PricedBy],
    month: str,
    left: frozenset[str],
    left_out: Collection[str],
    number: str,
) -> Tally:
    priced = _of_totals(db, priced, number)
    _write_steps(db, priced)
    charged = query_of(priced)
    sums: list[_Sum] = db.execute(f"{charged.format(number=number)} {SUMS}").fetchall()
    found = _gathered(sums, priced, left_out)
    minimums = _minimums(db, priced, sums, month, left_out, number)
    return replace(found, left=left, minimums=minimums, charged=charged, number=number)


def simple_meters(held: Held, past: Past, month: str) -> frozenset[str]:
    """Return the meters whose rows owe nothing to what else the month has used."""
    lists = [
        _in_force(
            past.state.price_lists[terms_of(past, customer_id, month).price_list],
            *month_bounds(month),
        )
        for customer_id in past.state.customers
    ]
    counted = {
        rule.meter
        for versions in lists
        for version in versions
        for rule in version.rules
        if counts(rule)
    }
    return frozenset(_reckoned(held, lists)) - counted


def only(held: Held, past: Past, meters: Iterable[str]) -> Past:
    """Return the past as far as it is about some meters; of others nothing is read."""

    def intervals(start: Micros, end: Micros) -> list[Interval]:
        return [x for meter in sorted(meters) for x in held.intervals(start, end, meter=meter)]

    return replace(past, intervals=intervals)


def _in_force(versions: Sequence[PriceList], start: Micros, end: Micros) -> list[PriceList]:
    """Return the versions of a list that are in force at some time of [start, end)."""
    until = [each.valid_from for each in versions[1:]] + [end]
    return [
        version
        for version, ends in zip(versions, until, strict=False)
        if version.valid_from < end and (ends > start or version is versions[-1])
    ]


def _reckoned(held: Held, lists: Collection[Sequence[PriceList]]) -> dict[str, MeterDefinition]:
    """Return the meters that never changed, and whose skus are counted alike in all versions."""
    others = {meter for versions in lists for meter in counted_otherwise(versions)}
    return {
        key: versions[0]
        for key, versions in held.versions.items()
        if len(versions) == 1
        and (versions[0].valid_from, versions[0].valid_until) == (0, None)
        and versions[0].aggregation in ADDITIVE
        and key not in others
        and not _may_tie(versions[0])
    }


def _may_tie(meter: MeterDefinition) -> bool:
    """Return whether one fact may give two points, or two stretches, that nothing tells apart.

    Which of them uses up a tier first is for ``pricing`` to say.
    """
    begun = Counter(
        (rule.fact, rule.effect == "add")
        for rule in meter.rules
        if rule.effect in {"add", "open", "set"}
    )
    return any(count > (1 if is_point else 2) for (_, is_point), count in begun.items())


def _need_own_skus(lists: Collection[Sequence[PriceList]]) -> None:
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
        "resource_kind, resource_id, project_id, meter, meter_version, dimensions, value, "
        "start_at, end_at, first_ordinal, last_ordinal, aggregation"
    )
    db.execute(
        "CREATE TEMP TABLE loose (resource_kind VARCHAR, resource_id VARCHAR, project_id VARCHAR, "
        "meter VARCHAR, meter_version INTEGER, dimensions VARCHAR, value BIGINT, "
        "start_at BIGINT, end_at BIGINT, "
        "first_ordinal BIGINT, last_ordinal BIGINT, aggregation VARCHAR)"
    )
    _insert(
        db,
        "loose",
        (
            (
                x.resource_kind, x.resource_id, x.project_id, x.meter, x.meter_version,
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
    meters: Mapping[str, MeterDefinition],
) -> list[PricedBy]:
    """Write which usage is priced how; return what it is numbered by."""
    db.execute(
        "CREATE TEMP TABLE prices (payer INTEGER, meter VARCHAR, dimensions VARCHAR, "
        "tells BOOLEAN, priced INTEGER, taken VARCHAR, account INTEGER, cap HUGEINT, "
        "shown_by HUGEINT, shown_of HUGEINT)"
    )
    # Dimensions are looked at only where a rule does, and only those that there are.
    telling = {
        rule.meter
        for _, version in payers
        if version is not None
        for rule in version.rules
        if rule.match and rule.meter in meters
    }
    kinds: dict[tuple[int, str], list[str]] = {}
    if telling:
        rows = db.execute(KINDS, [sorted(telling)]).fetchall()
        for number, meter, dimensions in rows:
            kinds.setdefault((number, meter), []).append(dimensions)
    priced: list[PricedBy] = []
    table: list[tuple[object, ...]] = []
    accounts: dict[tuple[str, str], int] = {}
    for number, (customer_id, version) in enumerate(payers):
        versions = lists[customer_id] if customer_id else ()
        named = {rule.meter for each in versions for rule in each.rules}
        for meter, definition in meters.items():
            too_early = bool(customer_id) and version is None and meter in named
            tells = version is not None and meter in telling
            by_rule: dict[str, int] = {}
            for dimensions in kinds.get((number, meter), []) if tells else [""]:
                rule = rule_of(version, meter, _decode_dimensions(dimensions) if tells else {})
                known = "" if rule is None else rule.sku + repr(rule.match)
                if known not in by_rule:
                    by_rule[known] = len(priced)
                    each = priced_by(customer_id, definition, version, rule, terms)
                    priced.append(replace(each, too_early=too_early))
                each = priced[by_rule[known]]
                account = each.account
                table.append(
                    (
                        number, meter, dimensions, tells, by_rule[known], each.taken,
                        None if account is None else accounts.setdefault(account, len(accounts)),
                        each.cap, *each.shown,
                    )
                )  # fmt: skip
    _insert(db, "prices", table)
    return priced


def _of_totals(
    db: duckdb.DuckDBPyConnection, priced: Sequence[PricedBy], number: str
) -> list[PricedBy]:
    """Let what a month has used by the end of each version of a list decide on its tier."""
    found = list(priced)
    if all(each.taken != "total" for each in found):
        return found
    matched = MATCHED.format(day=DAY).format(number=number)
    used: dict[tuple[str, str], dict[int, int]] = {}
    for at, quantity in db.execute(f"{matched} {TOTALS}").fetchall():
        of = found[at]
        assert of.account is not None, "volumes are counted"
        by_version = used.setdefault(of.account, {})
        by_version[of.version] = by_version.get(of.version, 0) + int(quantity)
    for at, of in enumerate(found):
        if of.taken == "total" and of.account is not None:
            by_version = used.get(of.account, {})
            total = sum(q for version, q in by_version.items() if version <= of.version)
            found[at] = at_total(of, total)
    return found


def _write_steps(db: duckdb.DuckDBPyConnection, priced: Sequence[PricedBy]) -> None:
    if any(
        max(*step.amount, *step.list_amount, *of.shown) >= NUMBER_MAX
        for of in priced
        for step in of.steps
    ):
        raise Uncountable("its prices have more digits than a database reckons with")
    db.execute(
        "CREATE OR REPLACE TEMP TABLE steps (priced INTEGER, tier INTEGER, begins HUGEINT, "
        "ends HUGEINT, amount_by HUGEINT, amount_of HUGEINT, list_by HUGEINT, list_of HUGEINT)"
    )
    _insert(
        db,
        "steps",
        (
            (number, step.tier, step.begins, step.ends, *step.amount, *step.list_amount)
            for number, of in enumerate(priced)
            for step in of.steps
        ),
    )


type _Sum = tuple[str, int, int, int, int, int, int, int, int, str, bool]


def _gathered(sums: Sequence[_Sum], priced: Sequence[PricedBy], left_out: Collection[str]) -> Tally:
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
            unassigned[key] = unassigned.get(key, 0) + int(found[4])
        elif of.rule is not None:
            # No sum has what it would be without a discount: it is first looked at in the rows.
            if max(int(found[4]), 1) * of.step(found[2]).list_amount[0] >= NUMBER_MAX:
                raise Uncountable("its numbers are larger than a database reckons with")
            line = of.customer_id, found[0], of.rule.sku
            groups.setdefault(line, []).append((found, of, of.rule))
    versions: dict[str, set[int]] = {}
    forms: list[Form] = []
    for at, ((customer_id, project_id, sku), parts) in enumerate(sorted(groups.items())):
        # Of one resource what is used under an earlier version, in a lower tier, comes first.
        parts.sort(key=lambda part: (part[0][9], part[1].version, part[0][2]))
        _, first, rule = parts[0]
        versions.setdefault(customer_id, set()).update(of.version for _, of, _ in parts)
        units = sum(int(found[6]) for found, _, _ in parts)
        cost = sum(int(found[5]) for found, _, _ in parts)
        line_ = Line(
            line=0,
            category="Usage",
            project_id=project_id,
            sku=sku,
            description=sku,
            quantity=text(Decimal(f"{units}E-{SHOWN_DECIMALS}")),
            unit=rule.unit,
            prices=tuple(dict.fromkeys(of.step(found[2]).price for found, of, _ in parts)),
            # Where a maximum is reached nothing has no decimals, in rows and so in their sum.
            amount="0"
            if all(found[10] for found, _, _ in parts)
            else text(Decimal(f"{cost}E-{first.places}")),
            rows=sum(found[3] for found, _, _ in parts),
            first_ordinal=min(found[7] for found, _, _ in parts),
            last_ordinal=max(found[8] for found, _, _ in parts),
        )
        lines[customer_id].append(Summed(line=line_, at=at))
        forms += (
            Form(
                project_id=project_id,
                number=found[1],
                priced=of,
                step=of.step(found[2]),
                line=at,
            )
            for found, of, _ in parts
        )
    return Tally(
        lines=lines,
        versions=versions,
        unassigned=unassigned,
        left=frozenset(),
        forms=tuple(forms),
        minimums={},
        charged="",
        number="",
    )


def _minimums(
    db: duckdb.DuckDBPyConnection,
    priced: Sequence[PricedBy],
    sums: Sequence[_Sum],
    month: str,
    left_out: Collection[str],
    number: str,
) -> dict[str, list[Row]]:
    """Return by customer the rows of what a month lacks to a minimum."""
    wanted = {
        of.account
        for of in priced
        if of.rule is not None and of.rule.minimum is not None and of.customer_id not in left_out
    }
    if not wanted:
        return {}
    numbered = db.execute("SELECT DISTINCT account, priced FROM prices WHERE account IS NOT NULL")
    by_account = {a: number for number, at in numbered.fetchall() if (a := priced[at].account)}
    spent: dict[tuple[str, str], int] = {}
    for found in sums:
        if (account := priced[found[1]].account) is not None:
            spent[account] = spent.get(account, 0) + int(found[5])
    matched = MATCHED.format(day=DAY).format(number=number)
    asked = [by_account[account] for account in wanted if account in by_account]
    rows: dict[str, list[Row]] = {}
    for _, used, last, *span in db.execute(f"{matched} {ACCOUNTS}", [asked]).fetchall():
        of = priced[last]
        least = None if of.rule is None else minimum_units(of.rule, of.places)
        if least is None or of.rule is None or of.price_list is None or not used:
            continue
        assert of.account is not None, "minimums are counted"
        lacking = least - spent.get(of.account, 0)
        if lacking > 0:
            usage = Usage(
                resource_kind="", resource_id="", project_id="", meter=of.meter.key,
                meter_version=of.meter.version, dimensions={}, value=0, quantity=0,
                start=0, end=0, first_ordinal=0, last_ordinal=0,
            )  # fmt: skip
            amount = Decimal(f"{lacking}E-{of.places}")
            first, through = span
            part = minimum_part(usage, of.price_list, of.rule, month, amount, (first, through))
            rows.setdefault(of.customer_id, []).append(row_of(part, of.meter))
    return rows
