"""The queries of a tally: intervals cut to a month's pieces, and what each piece costs.

They are our own words and numbers: whatever a tenant has named lies in the tables.
"""

from collections.abc import Iterable

from projections.price_table import PricedBy
from schemas.units import DAY

# What of intervals lies in the month, and under which days.
USED = """
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
        AND (meter, meter_version) IN (SELECT meter, version FROM meters)
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

# Cut where another pays or pays by other prices, each with what it is priced by.
MATCHED = """
WITH pieces AS (
    SELECT used.*, coalesce(payer, 0) AS payer,
        greatest(first, used.day * {day}, since) AS piece_start,
        least(last, (used.day + 1) * {day}, until) AS piece_end
    FROM used LEFT JOIN stretches
        ON stretches.project_id = used.project_id AND stretches.day = used.day
        AND first < until AND (last > since OR (first = last AND first >= since))
), measured AS (
    SELECT *, CASE WHEN integral THEN value::{{number}} * (piece_end - piece_start) ELSE value END
        AS quantity
    FROM pieces
), matched AS (
    SELECT measured.*, prices.* EXCLUDE (payer, meter, dimensions)
    FROM measured JOIN prices
        ON prices.payer = measured.payer AND prices.meter = measured.meter
        AND prices.dimensions = CASE WHEN tells THEN measured.dimensions ELSE '' END
)
"""
# The order in which a month uses up what is counted: that of ``pricing``. There are no ties: meters
# that could have any are left to it.
_WHEN = "piece_start, piece_end, first_ordinal, project_id, resource_id, meter"
_WHOLE = """
SELECT * EXCLUDE (begins, ends), quantity AS times
FROM matched JOIN steps USING (priced) WHERE taken IN ('whole', 'total')
"""
_SLICED = f"""
SELECT * EXCLUDE (begins, ends, reached)
    REPLACE ((least(reached + quantity, ends) - greatest(reached, begins))::{{number}} AS quantity),
    (least(reached + quantity, ends) - greatest(reached, begins))::{{number}} AS times
FROM (
    SELECT *, coalesce(sum(quantity) OVER (
        PARTITION BY account ORDER BY {_WHEN} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ), 0) AS reached
    FROM matched WHERE taken = 'sliced'
) JOIN steps USING (priced)
WHERE begins < ends AND reached < ends AND CASE WHEN quantity = 0 THEN reached >= begins
    ELSE reached + quantity > begins END
"""  # noqa: S608  # our own words
_ONCE = f"""
SELECT * EXCLUDE (begins, ends), CASE WHEN quantity > 0 AND row_number() OVER (
        PARTITION BY account, resource_kind, resource_id, quantity > 0 ORDER BY {_WHEN}
    ) = 1 THEN 1 ELSE 0 END AS times
FROM matched JOIN steps USING (priced) WHERE taken = 'once'
"""  # noqa: S608  # our own words
_BY_TAKEN = {"whole": _WHOLE, "total": _WHOLE, "sliced": _SLICED, "once": _ONCE}
_CAPPED = f"""
SELECT * EXCLUDE (spent) REPLACE (
    least(spent, cap) - least(spent - cost, cap) AS cost, spent - cost >= cap AND cost > 0 AS bare
)
FROM (
    SELECT *, sum(cost) OVER (
        PARTITION BY account ORDER BY {_WHEN}, tier ROWS UNBOUNDED PRECEDING
    ) AS spent
    FROM costing WHERE cap IS NOT NULL
)
"""  # noqa: S608  # our own words


def _rounded(amount: str, of: str) -> str:
    """Return the expression of a quotient, rounded once, half to even."""
    half = f"2 * ({amount} % {of})"
    return (
        f"{amount} // {of} + CASE WHEN {half} > {of} "
        f"OR ({half} = {of} AND ({amount} // {of}) % 2 = 1) THEN 1 ELSE 0 END"
    )


def query_of(priced: Iterable[PricedBy]) -> str:
    """Return the query of all pieces and what each costs, for what there is to price by."""
    priced = list(priced)
    parts = dict.fromkeys(_BY_TAKEN[each.taken] for each in priced)
    columns = ", ".join(
        f"{_rounded(amount, f'{of}_of::{{number}}')} AS {name}"
        for name, amount, of in (
            ("cost", "(times::{number} * amount_by::{number})", "amount"),
            ("list_cost", "(times::{number} * list_by::{number})", "list"),
            ("units", "(quantity::{number} * shown_by::{number})", "shown"),
        )
    )
    query = f"""{MATCHED.format(day=DAY)}, taken AS ({" UNION ALL ".join(parts)}), costing AS (
        SELECT project_id, resource_kind, resource_id, meter, dimensions, piece_start, piece_end,
            first_ordinal, last_ordinal, priced, account, cap, tier, quantity, {columns},
            false AS bare
        FROM taken
    )"""  # noqa: S608  # our own words
    if all(each.cap is None for each in priced):
        return f"{query}, charged AS (FROM costing)"
    return f"{query}, charged AS (FROM costing WHERE cap IS NULL UNION ALL {_CAPPED})"


SUMS = """
SELECT project_id, priced, tier, count(*), sum(quantity), sum(cost), sum(units),
    min(first_ordinal), max(last_ordinal), min(resource_id), bool_and(bare)
FROM charged GROUP BY ALL
"""
# Which combinations of dimensions somebody pays for.
KINDS = """
SELECT DISTINCT coalesce(payer, 0), meter, dimensions
FROM used LEFT JOIN stretches
    ON stretches.project_id = used.project_id AND stretches.day = used.day
    AND first < until AND (last > since OR (first = last AND first >= since))
WHERE meter IN (SELECT unnest(?))
"""
TOTALS = "SELECT priced, sum(quantity) FROM matched WHERE taken = 'total' GROUP BY ALL"
# Of accounts, what was used, by what it was priced last, and which facts it follows from.
ACCOUNTS = f"""
SELECT account, sum(quantity), last(priced ORDER BY {_WHEN}), min(first_ordinal), max(last_ordinal)
FROM matched WHERE account IN (SELECT unnest(?)) GROUP BY ALL
"""  # noqa: S608  # our own words
