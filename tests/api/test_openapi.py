"""The description of the API is valid, whole, and says what the routes do."""

import json
import re
from collections import Counter
from collections.abc import Iterator

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from api.app import SURFACES
from api.openapi import document
from tests.api.conftest import Cloud, credentials

DOCUMENT = document(SURFACES)
OPERATIONS = {
    (method.upper(), path): operation
    for path, found in DOCUMENT["paths"].items()
    for method, operation in found.items()
    if method != "parameters"
}
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}


def test_it_is_openapi_3_1():
    validate(DOCUMENT, cls=OpenAPIV31SpecValidator)
    for name, schema in DOCUMENT["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        for pattern in re.findall(r'"pattern": "([^"]*)"', json.dumps(schema)):
            assert "Z" not in pattern.removesuffix("\\Z") or "A-Z" in pattern, (name, pattern)
            assert not pattern.endswith("\\Z"), (name, pattern)


def test_every_route_is_described_and_nothing_else():
    routed = {
        (method, re.sub(r"\{\}", "*", surface.prefix + path))
        for surface in SURFACES
        for method, path, _ in surface.routes.listing()
    }

    assert {(m, re.sub(r"\{[^}]*\}", "*", p)) for m, p in OPERATIONS} == routed
    assert {method for method, _ in OPERATIONS} <= METHODS
    names = Counter(operation["operationId"] for operation in OPERATIONS.values())
    assert [name for name, times in names.items() if times > 1] == []


@pytest.mark.parametrize("surface", SURFACES, ids=lambda s: s.name)
def test_an_operation_says_what_its_route_promises(surface):
    """Of several microversions' routes the document has one operation, with all they promise."""
    for method, path, route in surface.routes.listing():
        pattern = re.compile(re.escape(surface.prefix + path).replace(r"\{\}", r"\{\w+\}") + r"\Z")
        (operation,) = (o for (m, p), o in OPERATIONS.items() if m == method and pattern.match(p))
        assert operation["tags"] == [surface.name]
        assert operation["summary"]
        assert set(map(str, route.status)) <= operation["responses"].keys()
        assert ("501" in operation["responses"]) >= (route.partly or 501 in route.status)
        assert (operation.get("security") == []) == route.public
        sent = operation.get("requestBody", {"content": {}})["content"]
        assert tuple(sent) == (
            route.takes if route.body or route.shape or (method == "PUT" and "file" in path) else ()
        )
        named = {p["name"] for p in operation["parameters"] if p["in"] == "query"}
        askable = method == "GET" and not (route.public or route.present)
        assert named == {*route.query, *(("as_of",) if askable else ())}
        versioned = [p["name"] for p in operation["parameters"] if p["in"] == "header"]
        assert versioned == [*route.headers, *(["OpenStack-API-Version"] * bool(surface.versions))]


def test_versions_of_an_operation_are_those_of_its_routes():
    operation = OPERATIONS["POST", "/compute/v2.1/os-keypairs"]

    assert operation["x-cumulog-versions"] == [
        {"min": "2.2", "max": "2.2"},
        {"min": "2.1", "max": "2.1"},
    ]
    schemas = operation["requestBody"]["content"]["application/json"]["schema"]["anyOf"]
    assert [s["$ref"].rpartition("/")[2] for s in schemas] == [
        "TypedKeypairBody",
        "NewKeypairBody",
    ]
    assert operation["responses"].keys() == {"default", "200", "201", "501"}


def test_it_is_served_to_anybody_as_bytes_made_once(cloud: Cloud):
    first, second = (cloud.anyone("GET", "/openapi.json") for _ in range(2))

    assert first.raw == second.raw
    assert first.body == json.loads(json.dumps(DOCUMENT))
    assert first.headers["content-type"] == "application/json"
    native = cloud.anyone("GET", "/v1/openapi.json").body
    described = {p for p in DOCUMENT["paths"] if p.startswith(("/v1/", "/openapi"))}
    assert native["paths"].keys() == described
    assert cloud.anyone("GET", "/").body["description"] == "/openapi.json"


def resolved(schema: dict) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema | {"components": DOCUMENT["components"]})


def body_of(method: str, path: str) -> jsonschema.Draft202012Validator:
    return resolved(
        OPERATIONS[method, path]["requestBody"]["content"]["application/json"]["schema"]
    )


def test_described_bodies_are_those_that_are_read():
    tokens = body_of("POST", "/identity/v3/auth/tokens")
    tokens.validate(credentials("a", "b", "c"))
    with pytest.raises(jsonschema.ValidationError):
        tokens.validate({"auth": {"identity": {"methods": "password"}}})
    networks = body_of("POST", "/network/v2.0/networks")
    networks.validate({"network": {"name": "x", "router:external": False}})
    with pytest.raises(jsonschema.ValidationError):
        networks.validate({"network": {"nonsense": 1}})
    actions = body_of("POST", "/v1/actions")
    actions.validate({"type": "StopServer", "server_id": "x"})
    for bad in ({"type": "Nonsense"}, {"type": "StopServer"}, {"server_id": "x"}):
        with pytest.raises(jsonschema.ValidationError):
            actions.validate(bad)


def unbounded(schema: dict, where: str, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield what of a body could be as long or as large as the whole body may be."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name not in seen:
            yield from unbounded(DOCUMENT["components"]["schemas"][name], name, seen | {name})
        return
    for one in schema.get("anyOf", ()):
        yield from unbounded(one, where, seen)
    match schema.get("type"):
        case "string" if "enum" not in schema and "maxLength" not in schema:
            if set("*+") & set(schema.get("pattern", "*")):
                yield where
        case "integer" | "number" if not {"minimum", "maximum"} <= schema.keys():
            yield where
        case "array":
            if "maxItems" not in schema:
                yield where
            yield from unbounded(schema.get("items") or {}, f"{where}[]", seen)
        case "object":
            for key, value in schema.get("properties", {}).items():
                yield from unbounded(value, f"{where}.{key}", seen)
            if "properties" not in schema and "maxProperties" not in schema:
                yield where
            yield from unbounded(schema.get("additionalProperties") or {}, f"{where}{{}}", seen)


@pytest.mark.parametrize(
    ("method", "path"), [key for key in OPERATIONS if "requestBody" in OPERATIONS[key]]
)
def test_every_value_of_a_body_has_a_limit(method: str, path: str):
    """Those of actions are in schemas/, which the engine judges by."""
    if path == "/v1/actions":
        return
    for content in OPERATIONS[method, path]["requestBody"]["content"].values():
        assert list(unbounded(content.get("schema", {}), path)) == []


ERRORS = [
    ("identity", "GET", "/identity/v3/users/nobody"),
    ("compute", "GET", "/compute/v2.1/servers/nothing"),
    ("compute", "POST", "/compute/v2.1/servers"),
    ("image", "GET", "/image/v2/images/nothing"),
    ("network", "GET", "/network/v2.0/networks/nothing"),
    ("native", "GET", "/v1/audit/nothing"),
]


@pytest.mark.parametrize(("service", "method", "path"), ERRORS)
def test_errors_have_the_described_shape(cloud: Cloud, service: str, method: str, path: str):
    content = DOCUMENT["components"]["responses"][f"{service}-error"]["content"]
    ((media, described),) = content.items()

    for api in (cloud.demo, cloud.anyone):
        reply = api(method, path, {} if method == "POST" else None)
        assert reply.status in {400, 401, 403, 404}
        assert reply.headers["content-type"] == media
        resolved(described["schema"]).validate(reply.body)
