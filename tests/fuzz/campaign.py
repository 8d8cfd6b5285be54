"""What is sent to each route, and what must hold of each answer.

Half of the ids in paths and bodies are those of things that are there, so that more is reached than
answers of 404. Everything is decided by the seed.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from msgspec import Struct, field
from schemathesis import Case, GenerationMode
from schemathesis.checks import (
    FailureGroup,
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
)
from schemathesis.schemas import APIOperation

from tests.api.conftest import Api, Cloud, fresh

PATCHES = "application/openstack-images-v2.1-json-patch"
schemathesis.serializer.alias(PATCHES, "application/json")

# A rolled log waits for the administrator's next stream, and with it every write.
# Answers that never end are followed elsewhere (tests/api/test_native.py).
NOT_ASKED = {"follow"}
LINES = ("application/jsonl", "text/csv")  # of which there may be none
KEPT = 3  # things of a kind, so that what is deleted leaves some


class Things(Struct, frozen=True):
    """What is there: by the name of a path's parameter, and by the key of a body."""

    paths: dict[str, list[str]]
    bodies: dict[str, list[str]]


class Broken(Struct, frozen=True):
    """A promise that one answer broke, and the request that shows it."""

    persona: str
    operation: str
    reason: str
    curl: str


class Campaign(Struct, kw_only=True):
    """One run against one cloud. ``sent`` counts by (persona, operation, status)."""

    cloud: Cloud
    examples: int
    seed: int
    broken: list[Broken] = field(default_factory=list)
    sent: dict[tuple[str, str, int], int] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Return what the cloud says of itself."""
        description: dict[str, Any] = self.cloud.anyone("GET", "/openapi.json").body
        return description

    def run(
        self, description: dict[str, Any], told: Callable[[str], None] = lambda _: None
    ) -> None:
        """Ask every route described as a member and as an administrator, mistakes included."""
        del description["security"]  # The token is the persona's, never a generated one.
        schema = schemathesis.openapi.from_dict(description)
        things = made(self.cloud)
        for found in schema.get_all_operations():
            operation = found.ok()
            self._ask(operation, GenerationMode.POSITIVE, things)
            if operation.body:
                self._ask(operation, GenerationMode.NEGATIVE, things)
            told(operation.label)

    def _ask(self, operation: APIOperation, mode: GenerationMode, things: Things) -> None:
        @seed(self.seed)
        @settings(
            max_examples=self.examples,
            database=None,
            deadline=None,
            phases=(Phase.generate,),  # a failure is reported as it is, and the next thing asked
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(mode), filled=st.booleans(), pick=st.randoms())
        def one(case: Case, filled: bool, pick: random.Random) -> None:
            if isinstance(case.query, dict):
                case.query = {k: v for k, v in case.query.items() if k not in NOT_ASKED}
            if filled:
                fill(case, things, pick)
            # What one persona deletes, the other does not find: each is first half of the time.
            personas = [("member", self.cloud.demo), ("admin", self.cloud.admin)]
            for persona, api in pick.sample(personas, 2):
                self._judge(persona, api, operation, case)

        try:
            one()
        except Unsatisfiable:
            if mode is GenerationMode.POSITIVE:
                raise  # Some bodies cannot be wrong (bytes of an image); all can be right.

    def _judge(self, persona: str, api: Api, operation: APIOperation, case: Case) -> None:
        headers = {"X-Auth-Token": api.token, "User-Agent": "schemathesis"}
        response = case.call(base_url=self.cloud.url, headers=headers, timeout=60)
        key = (persona, operation.label, response.status_code)
        self.sent[key] = self.sent.get(key, 0) + 1
        for reason in wrong(case, operation, response):
            curl = case.as_curl_command(headers=headers)
            self.broken.append(Broken(persona, operation.label, reason, curl))


def wrong(case: Case, operation: APIOperation, response: Any) -> Iterator[str]:
    """Say what is wrong with an answer."""
    status, declared = response.status_code, operation.definition.raw["responses"]
    if status >= 500 and not (status == 501 and "501" in declared):
        yield f"{status}: {response.text[:500]}"
    elif status < 400 and str(status) not in declared:
        yield f"{status} is not declared: {', '.join(declared)}"
    if "x-openstack-request-id" not in response.headers:
        yield "there is no request id"
    checks = [content_type_conformance, response_schema_conformance]
    if negated_body(case):
        checks.append(negative_data_rejection)
    if not response.content:
        checks = []  # which only bare answers are, and HEAD
        of_lines = response.headers.get("content-type", [""])[0].startswith(LINES)
        if status not in {204, 202, 304} and not of_lines:
            yield f"{status} without a body"
    try:
        case.validate_response(response, checks=checks)
    except FailureGroup as failures:
        for failure in failures.exceptions:
            yield f"{type(failure).__name__}: {failure}"[:2000]


def negated_body(case: Case) -> bool:
    """Return whether the body, and nothing else of the request, is not as described."""
    if case.meta is None:
        return False
    negative = {
        str(where)
        for where, info in case.meta.components.items()
        if info.mode is GenerationMode.NEGATIVE
    }
    return negative == {"body"}


def fill(case: Case, things: Things, pick: random.Random) -> None:
    """Put ids of what is there where the request has some."""
    if isinstance(case.path_parameters, dict):
        for name in case.path_parameters:
            if name in things.paths:
                case.path_parameters[name] = pick.choice(things.paths[name])
    case.body = filled(case.body, things.bodies, pick)


def filled(value: Any, ids: dict[str, list[str]], pick: random.Random) -> Any:
    """Return a body in which known keys have ids of what is there."""
    match value:
        case dict():
            return {
                k: pick.choice(ids[k]) if k in ids and isinstance(v, str) else filled(v, ids, pick)
                for k, v in value.items()
            }
        case list():
            return [filled(item, ids, pick) for item in value]
        case _:
            return value


# Of its own: a domain that is disabled, or a role that is deleted, would end both personas.
IDENTITY: dict[str, dict[str, object]] = {
    "domain": {},
    "project": {},
    "user": {"password": "a-password"},
    "group": {},
    "role": {},
    "region": {},
    "service": {"type": "fuzz"},
    "credential": {"type": "fuzz", "blob": "x"},
}
UNNAMED = {"region", "credential"}


def made_of(admin: Api, kind: str) -> list[str]:
    """Make some of a kind of identity's things, and return their ids."""
    return [
        admin.made(
            f"/identity/v3/{kind}s",
            {kind: IDENTITY[kind] | ({} if kind in UNNAMED else {"name": fresh("fuzz")})},
        )["id"]
        for _ in range(KEPT)
    ]


def made(cloud: Cloud) -> Things:
    """Make some of each thing for this run, and return their ids."""
    demo, admin, net = cloud.demo, cloud.admin, "/network/v2.0"
    networks = [cloud.network(demo, f"10.{60 + at}.0.0/24") for at in range(KEPT)]
    ports = [
        demo.made(f"{net}/ports", {"port": {"network_id": network["id"]}}) for network in networks
    ]
    images = [
        demo("POST", "/image/v2/images", {"name": fresh("fuzz"), "disk_format": "raw"}).body
        for _ in range(KEPT)
    ]
    flavors = [
        admin.made("/compute/v2.1/flavors", {"flavor": size})
        for size in ({"name": fresh("fuzz"), "ram": 1, "vcpus": 1, "disk": 1},) * 1
    ]
    servers = [cloud.server(demo, network["id"]) for network in networks]
    pairs = [
        api.made("/compute/v2.1/os-keypairs", {"keypair": {"name": fresh("fuzz")}})
        for api in (demo, admin)
        for _ in range(KEPT)
    ]
    group = demo("GET", f"{net}/security-groups").body["security_groups"][0]
    identity = {kind: made_of(admin, kind) for kind in IDENTITY}
    service = identity["service"][0]
    endpoints = [
        admin.made(
            "/identity/v3/endpoints",
            {"endpoint": {"service_id": service, "interface": "public", "url": "http://fuzz"}},
        )["id"]
        for _ in range(KEPT)
    ]
    request = demo("GET", f"/v1/why/{servers[0]['id']}").body["events"][0]["request_id"]
    operation = demo("GET", "/v1/operations?limit=1").body["operations"][0]["operation"]
    ids = {
        "server_id": [s["id"] for s in servers],
        "network_id": [n["id"] for n in networks],
        "subnet_id": [n["subnet"]["id"] for n in networks],
        "port_id": [p["id"] for p in ports],
        "image_id": [i["id"] for i in images],
        "flavor_id": [f["id"] for f in flavors],
        **{f"{kind}_id": found for kind, found in identity.items()},
        "implied_role_id": identity["role"],
        "endpoint_id": endpoints,
        "security_group_id": [group["id"]],
        "request_id": [request],
        "operation_id": [operation["operation_id"]],
        "keypair_name": [p["name"] for p in pairs],
        "resource_id": [s["id"] for s in servers],
    }
    image_ids = [cloud.image_id(), *ids["image_id"]]
    return Things(
        paths=ids,
        bodies={
            **ids,
            "imageRef": image_ids,
            "image_id": image_ids,
            "flavorRef": ["42", *ids["flavor_id"]],
            "key_name": ids["keypair_name"],
            "uuid": ids["network_id"],
            "port": ids["port_id"],
        },
    )
