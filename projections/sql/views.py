"""The views that questions in SQL are asked of, as they are documented.

``events`` is what everything else is made from: one row an ordinal, as the timeline has it, with a
body that shows no ciphertext. The others are SELECTs over it, so that who sees only a project's
events sees only what follows from them. Times are UTC; a row's ``ts`` is that of its commit.

An area that has something to be asked about adds a ``View`` to ``VIEWS``.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from msgspec import Struct

from projections.sql.question import Column

# A sealed value as it lies in the log, keys sorted; see ``schemas.sealed`` and ``redaction``.
_SEALED = r'\{"ciphertext":"[^"]*","key_id":("[^"]*"),"nonce":"[^"]*","wrapped_key":"[^"]*"\}'
SHOWN = (
    "CASE WHEN contains(body, '\"ciphertext\"') "
    f"THEN regexp_replace(body, '{_SEALED}', '{{\"key_id\":\\1}}', 'g') ELSE body END"
)

_ASKED = "json_extract_string(body, '$.request.{}')"


class Given(Struct, frozen=True, kw_only=True):
    """Rows that are not computed in SQL: the archiver is asked, and its answer is made into rows.

    ``columns`` are those of the table ``given_<view>``, with their types; each of ``rows`` has
    them by name.
    """

    question: str
    action: str  # what the policy calls reading this
    columns: dict[str, str]
    rows: Callable[[dict[str, Any]], Iterable[dict[str, Any]]]


class View(Struct, frozen=True, kw_only=True):
    """Something to select from. ``select`` is over the views before it, or over what is given.

    ``of`` says which events it is made of, where that is not all.
    """

    name: str
    about: str
    columns: tuple[Column, ...]
    select: str
    of: str = "true"
    given: Given | None = None


def _columns(*told: tuple[str, str, str]) -> tuple[Column, ...]:
    return tuple(Column(name=name, type=kind, about=about) for name, kind, about in told)


EVENTS = View(
    name="events",
    about="Every request and every fact, one row an ordinal.",
    columns=_columns(
        ("ordinal", "BIGINT", "its place in the log, without gaps"),
        ("ts", "TIMESTAMP", "when it was committed"),
        ("day", "DATE", "the day of that"),
        ("kind", "VARCHAR", "request or fact"),
        ("tag", "VARCHAR", "what was asked for (CreateServer), or which fact it is"),
        ("resource_kind", "VARCHAR", "what it is about"),
        ("resource_id", "VARCHAR", "and which one"),
        ("project_id", "VARCHAR", "whose that is"),
        ("user_id", "VARCHAR", "who asked for it"),
        ("request_id", "VARCHAR", "the request it belongs to"),
        ("cause", "VARCHAR", "the request behind that one"),
        ("verdict", "VARCHAR", "of a request: accepted or refused"),
        ("code", "VARCHAR", "why it was refused"),
        ("address", "VARCHAR", "whence a request came"),
        ("body", "VARCHAR", "all of it, as JSON"),
    ),
    select="",  # from segments and the read model: see ``child``
)

REQUESTS = View(
    of="kind = 'request'",
    name="requests",
    about="Who asked for what, and what was decided.",
    columns=_columns(
        ("ordinal", "BIGINT", "its place in the log"),
        ("ts", "TIMESTAMP", "when it was committed"),
        ("day", "DATE", "the day of that"),
        ("submitted_at", "TIMESTAMP", "when an edge took it"),
        ("request_id", "VARCHAR", "as X-Openstack-Request-Id told it"),
        ("action", "VARCHAR", "what was asked for"),
        ("verdict", "VARCHAR", "accepted or refused"),
        ("code", "VARCHAR", "why it was refused"),
        ("reason", "VARCHAR", "the same in words"),
        ("user_id", "VARCHAR", "who asked"),
        ("project_id", "VARCHAR", "whose it is about"),
        ("address", "VARCHAR", "whence it came"),
        ("agent", "VARCHAR", "by which client"),
        ("api", "VARCHAR", "and which service"),
        ("resource_kind", "VARCHAR", "what it is about"),
        ("resource_id", "VARCHAR", "and which one"),
        ("cause", "VARCHAR", "the request behind it"),
        ("body", "VARCHAR", "request and verdict, as JSON"),
    ),
    select=f"""
SELECT ordinal, ts, day,
  make_timestamp(CAST({_ASKED.format("submitted_at")} AS BIGINT)) AS submitted_at,
  request_id, tag AS action, verdict, code,
  json_extract_string(body, '$.verdict.reason') AS reason,
  user_id, project_id, address,
  {_ASKED.format("client.agent")} AS agent,
  {_ASKED.format("client.api")} AS api,
  resource_kind, resource_id, cause, body
FROM events WHERE kind = 'request'
""",  # noqa: S608  # our own words
)

SERVERS_HISTORY = View(
    of="kind = 'fact' AND tag LIKE 'compute.server.%'",
    name="servers_history",
    about="What each server was, and from when to when: a row for each change of its state.",
    columns=_columns(
        ("server_id", "VARCHAR", "which server"),
        ("project_id", "VARCHAR", "whose"),
        ("name", "VARCHAR", "what it was called then"),
        ("status", "VARCHAR", "as the API showed it, or DELETED"),
        ("flavor", "VARCHAR", "name of its flavor"),
        ("vcpus", "BIGINT", "that it has"),
        ("memory_mib", "BIGINT", "that it has"),
        ("disk_gib", "BIGINT", "that it has"),
        ("host_id", "VARCHAR", "where it was"),
        ("since", "TIMESTAMP", "when it became so"),
        ("until", "TIMESTAMP", "when it was so no longer; NULL: it still is"),
        ("ordinal", "BIGINT", "of the fact that made it so"),
        ("request_id", "VARCHAR", "of the request that fact follows from"),
    ),
    select="""
WITH facts AS (
  SELECT ordinal, ts, resource_id AS server_id, project_id, request_id, tag, body,
    CASE tag
      WHEN 'compute.server.created.v1' THEN 'BUILD'
      WHEN 'compute.server.started.v1' THEN 'ACTIVE'
      WHEN 'compute.server.rebooted.v1' THEN 'ACTIVE'
      WHEN 'compute.server.stopped.v1' THEN 'SHUTOFF'
      WHEN 'compute.server.reboot_requested.v1'
        THEN CASE WHEN body LIKE '%"hard":true%' THEN 'HARD_REBOOT' ELSE 'REBOOT' END
      WHEN 'compute.server.resize_requested.v1' THEN 'RESIZE'
      WHEN 'compute.server.resized.v1' THEN 'VERIFY_RESIZE'
      WHEN 'compute.server.resize_revert_requested.v1' THEN 'REVERT_RESIZE'
      WHEN 'compute.server.resize_confirmed.v1'
        THEN CASE WHEN body LIKE '%"running":true%' THEN 'ACTIVE' ELSE 'SHUTOFF' END
      WHEN 'compute.server.resize_reverted.v1'
        THEN CASE WHEN body LIKE '%"running":true%' THEN 'ACTIVE' ELSE 'SHUTOFF' END
      WHEN 'compute.server.failed.v1' THEN 'ERROR'
      WHEN 'compute.server.deleted.v1' THEN 'DELETED'
      WHEN 'compute.server.task_failed.v1'
        THEN CASE WHEN body LIKE '%"running":true%' THEN 'ACTIVE' ELSE 'SHUTOFF' END
    END AS rests,
    -- Whether a resize that is done waits for its owner, whatever the server does meanwhile.
    last_value(CASE
      WHEN tag IN ('compute.server.resized.v1', 'compute.server.resize_revert_requested.v1')
        THEN true
      WHEN tag IN ('compute.server.created.v1', 'compute.server.reboot_requested.v1',
        'compute.server.resize_requested.v1', 'compute.server.resize_confirmed.v1',
        'compute.server.resize_reverted.v1', 'compute.server.failed.v1')
        THEN false
      END IGNORE NULLS) OVER (PARTITION BY resource_id ORDER BY ordinal
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS waits,
    CASE WHEN waits AND tag IN ('compute.server.started.v1', 'compute.server.rebooted.v1',
        'compute.server.stopped.v1', 'compute.server.task_failed.v1')
      THEN 'VERIFY_RESIZE' ELSE rests END AS status
  FROM events
  WHERE kind = 'fact' AND tag LIKE 'compute.server.%'
), sized AS (
  SELECT *, CASE tag
    WHEN 'compute.server.created.v1' THEN json_extract(body, '$.server.flavor')
    WHEN 'compute.server.resized.v1' THEN json_extract(body, '$.flavor')
    WHEN 'compute.server.resize_reverted.v1' THEN json_extract(body, '$.flavor')
    END AS sizes
  FROM facts
), held AS (
  SELECT ordinal, ts, server_id, project_id, request_id, tag,
    last_value(status IGNORE NULLS) OVER history AS status,
    last_value(coalesce(json_extract_string(body, '$.server.name'),
      json_extract_string(body, '$.name')) IGNORE NULLS) OVER history AS name,
    last_value(json_extract_string(sizes, '$.name') IGNORE NULLS)
      OVER history AS flavor,
    last_value(CAST(json_extract_string(sizes, '$.vcpus') AS BIGINT) IGNORE NULLS)
      OVER history AS vcpus,
    last_value(CAST(json_extract_string(sizes, '$.memory_mib') AS BIGINT)
      IGNORE NULLS) OVER history AS memory_mib,
    last_value(CAST(json_extract_string(sizes, '$.disk_gib') AS BIGINT)
      IGNORE NULLS) OVER history AS disk_gib,
    last_value(CASE WHEN tag = 'compute.server.placed.v1'
      THEN json_extract_string(body, '$.host_id') END IGNORE NULLS) OVER history AS host_id
  FROM sized
  WINDOW history AS (
    PARTITION BY server_id ORDER BY ordinal ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
), changed AS (
  SELECT *, lag((status, name, flavor, vcpus, memory_mib, disk_gib, host_id))
    OVER (PARTITION BY server_id ORDER BY ordinal) AS before
  FROM held
)
SELECT server_id, project_id, name, status, flavor, vcpus, memory_mib, disk_gib, host_id,
  ts AS since, lead(ts) OVER (PARTITION BY server_id ORDER BY ordinal) AS until,
  ordinal, request_id
FROM changed
WHERE before IS DISTINCT FROM (status, name, flavor, vcpus, memory_mib, disk_gib, host_id)
""",
)

_USED = {
    "resource_kind": "VARCHAR", "resource_id": "VARCHAR", "project_id": "VARCHAR",
    "meter": "VARCHAR", "start": "BIGINT", "end": "BIGINT", "quantity": "VARCHAR",
    "unit": "VARCHAR", "first_ordinal": "BIGINT", "last_ordinal": "BIGINT",
}  # fmt: skip
_OF_A_RESOURCE = (
    ("resource_kind", "VARCHAR", "what it is about"),
    ("resource_id", "VARCHAR", "and which one"),
    ("project_id", "VARCHAR", "whose"),
    ("meter", "VARCHAR", "as the definition of the meter is called"),
)
_WHEN = (
    ("since", "TIMESTAMP", "from then on"),
    ("until", "TIMESTAMP", "up to then, exclusive"),
    ("quantity", "DECIMAL(38,12)", "how much, in the unit"),
    ("unit", "VARCHAR", "that prices are in"),
)
_FACTS = (
    ("first_ordinal", "BIGINT", "the fact that it begins with"),
    ("last_ordinal", "BIGINT", "and the one that it ends with"),
)
_HELD = (
    "resource_kind, resource_id, project_id, meter, {more}make_timestamp(start) AS since, "
    'make_timestamp("end") AS until, CAST(quantity AS DECIMAL(38,12)) AS quantity, unit, '
)


def _usage_rows(answer: dict[str, Any]) -> Iterable[dict[str, Any]]:
    rows: list[dict[str, Any]] = answer["usage"]
    return rows


USAGE = View(
    name="usage",
    about="What was held or counted, as exact intervals: what `cumulog usage` shows.",
    columns=_columns(
        *_OF_A_RESOURCE,
        ("dimensions", "VARCHAR", "of the meter, as JSON"),
        ("value", "DECIMAL(38,0)", "how much was held all that time"),
        *_WHEN,
        *_FACTS,
    ),
    select="SELECT "  # noqa: S608  # our own words
    + _HELD.format(more="dimensions, CAST(value AS DECIMAL(38,0)) AS value, ")
    + "first_ordinal, last_ordinal FROM given_usage",
    of="false",
    given=Given(
        question="usage",
        action="billing:usage:read",
        columns={**_USED, "dimensions": "VARCHAR", "value": "VARCHAR"},
        rows=_usage_rows,
    ),
)


def _charge_rows(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for bill in answer["bills"]:
        about = {"project_id": bill["project_id"], "currency": bill["currency"]}
        for line in bill["lines"]:
            for charge in line["charges"]:
                yield {**charge, **about}


CHARGES = View(
    name="charges",
    about="What that costs under the standard price list: what `cumulog bill` adds up.",
    columns=_columns(
        *_OF_A_RESOURCE,
        ("sku", "VARCHAR", "of the price list's rule"),
        *_WHEN,
        ("unit_price", "DECIMAL(38,12)", "of one unit"),
        ("amount", "DECIMAL(38,12)", "what it costs, before the total is rounded"),
        ("currency", "VARCHAR", "of both"),
        ("price_list", "VARCHAR", "the price list"),
        ("price_list_version", "BIGINT", "and its version"),
        *_FACTS,
    ),
    select="SELECT "  # noqa: S608  # our own words
    + _HELD.format(more="sku, ")
    + "CAST(unit_price AS DECIMAL(38,12)) AS unit_price, "
    "CAST(amount AS DECIMAL(38,12)) AS amount, currency, price_list, price_list_version, "
    "first_ordinal, last_ordinal FROM given_charges",
    of="false",
    given=Given(
        question="bill",
        action="billing:usage:read",
        columns={
            **_USED,
            "sku": "VARCHAR",
            "unit_price": "VARCHAR",
            "amount": "VARCHAR",
            "currency": "VARCHAR",
            "price_list": "VARCHAR",
            "price_list_version": "BIGINT",
        },
        rows=_charge_rows,
    ),
)

VIEWS = (EVENTS, REQUESTS, SERVERS_HISTORY, USAGE, CHARGES)
# Words without which no SQL looks at anything that is in a body alone.
FROM_BODIES = frozenset({"body", "submitted_at", "reason", "agent", "api", SERVERS_HISTORY.name})
