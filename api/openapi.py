"""The description of the whole API in OpenAPI 3.1, made from what the routes declare.

Invariant: nothing is described that is not routed and nothing routed is left out; bodies are
described by the types that read them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec
from msgspec import Struct

from api.exchange import AS_OF
from api.microversions import written
from api.routing import ANY_ACTION, JSON_TYPE, Route, Surface

HEADER = "X-Auth-Token"
_REF = "#/components/schemas/{name}"

# What stands in a path where it says {}, after such a word; others are ids of what the word says.
_NAMED = {
    "OS-EC2": "access_key",
    "audit": "request_id",
    "blast-radius": "kind",
    "extensions": "alias",
    "implies": "implied_role_id",
    "ips": "network_name",
    "metadata": "key",
    "os-instance-actions": "request_id",
    "os-keypairs": "keypair_name",
    "os-quota-class-sets": "class_name",
    "os-quota-sets": "project_id",
    "proof": "request_id_or_ordinal",
    "quotas": "project_id",
    "security_compliance": "option",
    "tags": "tag",
    "why": "resource_id",
}
_BOOLEAN = {"enum": ["true", "false", "True", "False", "1", "0"]}
_WHOLE = {"type": "integer", "minimum": 0}
# What query parameters of a name are, wherever they are; all others are text.
_QUERY: dict[str, dict[str, Any]] = {
    "after": _WHOLE,
    "all_tenants": _BOOLEAN,
    "before": _WHOLE,
    "deleted": _BOOLEAN,
    "dry_run": _BOOLEAN,
    "enabled": _BOOLEAN,
    "fields": {"type": "array", "items": {"type": "string"}},
    "follow": _BOOLEAN,
    "is_domain": _BOOLEAN,
    "limit": _WHOLE,
    "minDisk": _WHOLE,
    "minRam": _WHOLE,
    "os_hidden": _BOOLEAN,
    "page_reverse": _BOOLEAN,
    "people": _BOOLEAN,
    "protected": _BOOLEAN,
    "running": _BOOLEAN,
    "shared": _BOOLEAN,
    "size_max": _WHOLE,
    "size_min": _WHOLE,
    "sort_dir": {"type": "array", "items": {"enum": ["asc", "desc"]}},
    "sort_key": {"type": "array", "items": {"type": "string"}},
}


class _Fault(Struct, frozen=True):
    code: int
    message: str


class _TitledFault(Struct, frozen=True):
    code: int
    title: str
    message: str


class IdentityError(Struct, frozen=True):
    """An error of identity, and of network where nobody is let in."""

    error: _TitledFault


class ImageError(Struct, frozen=True):
    """An error of image."""

    message: str
    code: str
    title: str


class _NeutronError(Struct, frozen=True):
    type: str
    message: str
    detail: Literal[""]


class NetworkError(Struct, frozen=True):
    """An error of network."""

    NeutronError: _NeutronError


class NativeError(Struct, frozen=True):
    """A problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    hint: str
    request_id: str


# One key, the name of the fault; the status decides which.
type ComputeError = dict[str, _Fault]
_ERRORS: dict[str, tuple[Any, ...]] = {
    "identity": (IdentityError,),
    "compute": (ComputeError,),
    "image": (ImageError,),
    "network": (NetworkError, IdentityError),
    "native": (NativeError,),
}


def document(services: Iterable[Surface]) -> dict[str, Any]:
    """Return the description of services."""
    served = list(services)
    routes = [(s, *listed) for s in served for listed in s.routes.listing()]
    kinds = [kind for _, _, _, route in routes if (kind := _kind(route)) is not None]
    errors = [error for s in served for error in _ERRORS[s.name]]
    found, components = msgspec.json.schema_components([*kinds, *errors], ref_template=_REF)
    bodies, shapes = iter(found), iter(found[len(kinds) :])
    paths: dict[str, dict[str, Any]] = {}
    for service, method, path, route in routes:
        body = next(bodies) if _kind(route) is not None else None
        full, names = _path(service.prefix + path)
        operation = _operation(service, full, method, route, body)
        at = paths.setdefault(full, {"parameters": [_path_parameter(n) for n in names]})
        newer = at.get(method.lower())
        at[method.lower()] = operation if newer is None else _merged(newer, operation)
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Cumulog",
            "version": "1",
            "description": "OpenStack's APIs under a prefix each, and the native one under /v1.",
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": s.name} for s in served],
        "security": [{HEADER: []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {
                f"{s.name}-error": _response(
                    "What was wrong.",
                    s.error_type.decode(),
                    {"anyOf": [next(shapes) for _ in _ERRORS[s.name]]},
                )
                for s in served
            },
            "securitySchemes": {HEADER: {"type": "apiKey", "in": "header", "name": HEADER}},
        },
    }
    return _tidied(described)


def _kind(route: Route) -> Any:
    """Return the type of a route's body; None if it has none, or not of JSON."""
    if route.shape is not None:
        return route.shape
    return None if route.body is None else route.body.type


def _path(path: str) -> tuple[str, list[str]]:
    """Return a path with names where it says {}, and the names."""
    words: list[str] = []
    names: list[str] = []
    for word in path.split("/"):
        if word == "{}":
            before = words[-1].strip("{}")
            thing = before.removeprefix("os-").replace("-", "_").lower().removesuffix("s")
            name = _NAMED.get(before, f"{thing}_id")
            while name in names:
                name += "_"
            names.append(name)
            words.append(f"{{{name}}}")
        else:
            words.append(word)
    return "/".join(words), names


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _operation(
    service: Surface, path: str, method: str, route: Route, body: dict[str, Any] | None
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _ident(method, path),
        "summary": _summary(route),
        "tags": [service.name],
        "x-cumulog-actions": ["any"] if route.actions == (ANY_ACTION,) else list(route.actions),
        "parameters": [*_queries(method, route), *_headers(service, route)],
        "responses": _responses(service, route),
    }
    if route.public:
        operation["security"] = []
    if body is not None or route.takes != (JSON_TYPE,):
        schema = {} if body is None else {"schema": body}
        operation["requestBody"] = {
            "required": True,
            "content": {media: dict(schema) for media in route.takes},
        }
    if service.versions is not None:
        low, high = service.versions.minimum, service.versions.maximum
        span = {
            "min": written(max(low, route.first)),
            "max": written(min(high, route.last)),
        }
        operation["x-cumulog-versions"] = [span]
    return operation


def _ident(method: str, path: str) -> str:
    words = re.sub(r"[^A-Za-z0-9]+", "-", path).strip("-")
    return f"{method.lower()}-{words}" + ("-root" if path.endswith("/") else "")


def _summary(route: Route) -> str:
    """Return what a handler says of itself; where it says no more than its path, what is done."""
    text = (route.handler.__doc__ or "").strip().partition("\n")[0]
    said = text.partition(": ")[2].rstrip(".")
    if not said:
        done = route.actions[0]
        _, thing, verb = done.split(":") if ":" in done else ("", "", _spaced(done))
        said = f"{verb} {thing}".replace("_", " ").strip()
    return said[0].upper() + said[1:]


def _spaced(name: str) -> str:
    """Return ``CreateServer`` as create server."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def _queries(method: str, route: Route) -> Iterator[dict[str, Any]]:
    for name in route.query:
        schema = _QUERY.get(name, {"type": "string"})
        yield {"name": name, "in": "query", "required": False, "schema": schema}
    if method == "GET" and not (route.public or route.present):
        yield {
            "name": AS_OF,
            "in": "query",
            "required": False,
            "schema": {"type": "string"},
            "description": "An ordinal or a time: answer as one who asked then was answered.",
        }


def _headers(service: Surface, route: Route) -> Iterator[dict[str, Any]]:
    for name in route.headers:
        yield {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}
    if service.versions is not None:
        yield {
            "name": "OpenStack-API-Version",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": f"{service.versions.service} and a microversion, or latest.",
        }


def _response(text: str, media: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {media: {"schema": schema}}}


def _responses(service: Surface, route: Route) -> dict[str, Any]:
    error = {"$ref": f"#/components/responses/{service.name}-error"}
    responses: dict[str, Any] = {"default": error}
    for status in route.status:
        if status == 501:
            responses["501"] = error
        elif status == 204 or status in route.bare:
            responses[str(status)] = {"description": "Done."}
        else:
            schema = {"type": "object"} if route.gives == JSON_TYPE else {}
            responses[str(status)] = _response("Done.", route.gives, schema)
    if route.partly:
        responses["501"] = error
    return responses


def _merged(newer: dict[str, Any], older: dict[str, Any]) -> dict[str, Any]:
    """Return one operation of two, of different microversions."""
    versions = newer["x-cumulog-versions"] + older["x-cumulog-versions"]
    merged = {
        **newer,
        "responses": older["responses"] | newer["responses"],
        "x-cumulog-versions": versions,
    }
    bodies = [o["requestBody"] for o in (newer, older) if "requestBody" in o]
    if len(bodies) == 2 and bodies[0] != bodies[1]:
        both = [b["content"][JSON_TYPE]["schema"] for b in bodies]
        content = {JSON_TYPE: {"schema": {"anyOf": both}}}
        merged["requestBody"] = {"required": True, "content": content}
    return merged


def _tidied(described: dict[str, Any]) -> dict[str, Any]:
    """Return the document with names and patterns as readers of JSON Schema know them."""
    schemas = described["components"]["schemas"]
    plain = Counter(name.lstrip("_") for name in schemas)
    names = {name: name.lstrip("_") if plain[name.lstrip("_")] == 1 else name for name in schemas}
    refs = {_REF.format(name=old): _REF.format(name=new) for old, new in names.items()}

    def tidy(value: Any) -> Any:
        match value:
            case dict():
                return {
                    key: item.replace(r"\Z", "$")
                    if key == "pattern" and isinstance(item, str)
                    else names.get(item, item)
                    if key == "title" and isinstance(item, str)
                    else tidy(item)
                    for key, item in value.items()
                }
            case list() | tuple():
                return [tidy(item) for item in value]
            case str():
                return refs.get(value, value)
            case _:
                return value

    tidied: dict[str, Any] = tidy(described)
    tidied["components"]["schemas"] = {
        names[old]: tidy(schema) for old, schema in sorted(schemas.items())
    }
    return tidied
