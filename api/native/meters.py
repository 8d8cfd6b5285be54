"""Meters: what is measured, by Cumulog and by whoever defined more.

They are defined and deleted by submitting the actions ``DefineMeter`` and ``DeleteMeter``.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from api.exchange import Answer, Call, json_answer
from api.routing import Routes
from schemas.errors import NotFound
from schemas.metering import BUILT_IN, MeterDefinition

READ = "metering:meters:read"


async def list_all(call: Call) -> Answer:
    """GET /v1/meters: the newest version of each, Cumulog's own first."""
    newest = {**BUILT_IN, **{meter.key: meter for meter in call.edge.reader.meters()}}
    return json_answer({"meters": [_view(meter) for meter in newest.values()]})


async def show(call: Call) -> Answer:
    """GET /v1/meters/{key}: all versions of one, the newest last."""
    versions = list(_versions(call, call.args[0]))
    if not versions:
        raise NotFound(f"there is no meter {call.args[0]!r}")
    return json_answer({"meter": {**versions[-1], "versions": versions}})


def _versions(call: Call, key: str) -> Iterator[dict[str, Any]]:
    if key in BUILT_IN:
        yield _view(BUILT_IN[key])
    for meter in call.edge.reader.meters(key=key):
        yield _view(meter)


def _view(meter: MeterDefinition) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(meter)
    return {
        **fields,
        "version": meter.version,
        "dimensions": meter.dimensions,
        "built_in": meter.key in BUILT_IN,
        "deleted": meter.valid_until is not None,
    }


def add(routes: Routes) -> None:
    """Route what this module answers."""
    routes.add("GET", "/v1/meters", list_all, READ)
    routes.add("GET", "/v1/meters/{}", show, READ)
