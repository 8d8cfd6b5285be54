"""A project's own numbers for Prometheus: what it holds, uses, may hold, and which alarms ring.

``/metrics`` tells operators of the cell and nothing of tenants; this tells a tenant of its project,
whoever's token asks, and nothing of others.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest

from api.exchange import Answer, Call
from api.native.actions import own_project
from api.native.history import asked
from api.routing import Routes
from engine.domain.usage import BY_USER
from schemas.errors import InvalidInput
from schemas.quota import UNLIMITED

READ = "billing:usage:read"
TEXT = b"text/plain; version=0.0.4; charset=utf-8"


class _Families(CollectorRegistry):
    """Families that are known already, for the library's writer to write down."""

    def __init__(self, families: list[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


async def metrics(call: Call) -> Answer:
    """GET /v1/metrics/project: in Prometheus' text format."""
    project_id = own_project(call) or call.principal.project_id
    if not project_id:
        raise InvalidInput("say of which project (project)")
    told = await asked(call, "project_numbers", {"project": project_id})
    held = _gauge("cumulog_project_held", "What is held now, as the meter's values count it.")
    used = _gauge("cumulog_project_month_usage", "What was used since the month began, by unit.")
    for number in told["numbers"]:
        labels = {"meter": number["meter"], **number["dimensions"]}
        if number["held"] is not None:
            held.add_sample(held.name, labels, number["held"])
        used.add_sample(used.name, {**labels, "unit": number["unit"]}, float(number["used"]))
    families = [held, used, *_quotas(call, project_id), _servers(call, project_id)]
    ringing = _gauge("cumulog_project_alarm_ringing", "Whether an alarm rings.")
    for alarm in call.edge.reader.alarms(project_id=project_id):
        ringing.add_sample(ringing.name, {"alarm": alarm.name}, int(alarm.ringing))
    as_of = _gauge("cumulog_project_ordinal", "The last ordinal of the log that was looked at.")
    as_of.add_sample(as_of.name, {}, told["as_of"])
    body = generate_latest(_Families([*families, ringing, as_of]))
    return Answer(200, body, content_type=TEXT)


def _quotas(call: Call, project_id: str) -> tuple[Metric, Metric]:
    reader = call.edge.reader
    used = _gauge("cumulog_project_quota_used", "What the project holds of a thing.")
    limit = _gauge("cumulog_project_quota_limit", "How much it may hold; nothing if any.")
    held = reader.quota_use(project_id)
    for name, most in reader.quota_limits(project_id).items():
        if name in BY_USER or name not in held:
            continue
        used.add_sample(used.name, {"resource": name}, held[name])
        if most != UNLIMITED:
            limit.add_sample(limit.name, {"resource": name}, most)
    return used, limit


def _servers(call: Call, project_id: str) -> Metric:
    found = _gauge("cumulog_project_servers", "Servers, by their status.")
    for status, number in call.edge.reader.server_counts(project_id):
        found.add_sample(found.name, {"status": status}, number)
    return found


def _gauge(name: str, about: str) -> Metric:
    return Metric(name, about, "gauge")


def add(routes: Routes) -> None:
    """Route what this module answers."""
    routes.add(
        "GET",
        "/v1/metrics/project",
        metrics,
        READ,
        query=("project", "project_id"),
        gives="text/plain",
        present=True,
    )
