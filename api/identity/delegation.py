"""What application credentials and trusts share: roles named by id or name, when they end."""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from api.exchange import Call
from api.times import parse_time
from schemas.errors import InvalidInput
from schemas.units import Micros, Text


class RoleRef(Struct, frozen=True):
    """A role, by id, or by name and, if it is a domain's own, that domain."""

    id: Text | None = None
    name: Text | None = None
    domain_id: Text | None = None


def role_ids(call: Call, refs: Iterable[RoleRef]) -> tuple[str, ...]:
    """Return the ids of roles that are named.

    Raises:
        InvalidInput: one is not named, or there is none of the name.
    """
    found: list[str] = []
    for ref in refs:
        if ref.id is not None:
            found.append(ref.id)
            continue
        if ref.name is None:
            raise InvalidInput("a role is given by id or by name")
        roles = call.edge.reader.roles(name=ref.name, domain_id=ref.domain_id or "")
        if not roles:
            raise InvalidInput(f"there is no role named {ref.name[:64]!r}")
        found.append(roles[0].role_id)
    return tuple(dict.fromkeys(found))


def role_refs(call: Call, ids: Iterable[str]) -> list[dict[str, Any]]:
    """Return roles as what was given them shows them."""
    roles = (call.edge.reader.role(ident) for ident in ids)
    return [
        {"id": role.role_id, "name": role.name, "domain_id": role.domain_id or None}
        for role in roles
        if role is not None
    ]


def time_given(text: str | None) -> Micros | None:
    """Return a time as it was sent.

    Raises:
        InvalidInput: it is none.
    """
    if text is None:
        return None
    try:
        return parse_time(text)
    except (ValueError, OverflowError) as error:
        raise InvalidInput("expires_at must be a time as 2026-01-02T03:04:05Z") from error
