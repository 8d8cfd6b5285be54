"""Pages: how many, after which, and the link to the next.

Invariant: a page that came out full always has a next link (the one after may be empty), and the
link keeps every other parameter of the query.
"""

import re
from collections.abc import Mapping
from urllib.parse import urlencode

from msgspec import Struct

from api.exchange import AS_OF, Call
from schemas.errors import InvalidInput

LIMIT_MAX = 1000
PAGED = ("limit", "marker", "sort_key", "sort_dir")


class Page(Struct, frozen=True, kw_only=True):
    """What part of a list is asked for. ``asked`` says whether the client gave a limit."""

    limit: int
    marker: str | None
    asked: bool


def page_of(call: Call, *, maximum: int = LIMIT_MAX) -> Page:
    """Return the page asked for.

    Raises:
        InvalidInput: ``limit`` is no number, or negative.
    """
    text = call.param("limit")
    if text and not re.fullmatch(r"[0-9]{1,18}", text):
        raise InvalidInput(f"limit must be a whole number from 0, not {text[:50]!r}")
    limit = min(int(text), maximum) if text else maximum
    return Page(limit=limit, marker=call.param("marker") or None, asked=bool(text))


def next_href(call: Call, last_id: str, *, path: str | None = None, reverse: bool = False) -> str:
    """Return the address of the page after ``last_id``, or before it in ``reverse``.

    ``path`` replaces scheme, host and path.
    """
    pairs = [(k, v) for k, v in call.query if k not in {"marker", "page_reverse"}]
    pairs.append(("marker", last_id))
    if reverse:
        pairs.append(("page_reverse", "True"))
    if call.as_of:
        pairs.append((AS_OF, call.as_of))
    return f"{call.base + call.path if path is None else path}?{urlencode(pairs)}"


def sort_of(
    call: Call, columns: Mapping[str, str], default: list[tuple[str, bool]]
) -> list[tuple[str, bool]]:
    """Return the sort asked for by ``sort_key``/``sort_dir`` or ``sort=key:dir,…``.

    ``columns`` maps the service's names to the read model's.

    Raises:
        InvalidInput: a key cannot be sorted by, or a direction is neither asc nor desc.
    """
    keys: list[tuple[str, str]] = []
    for part in ",".join(call.params("sort")).split(","):
        if part:
            key, _, direction = part.partition(":")
            keys.append((key, direction or "desc"))
    if not keys:
        directions = call.params("sort_dir")
        names = [n for value in call.params("sort_key") for n in value.split(",") if n]
        for at, name in enumerate(names):
            direction = directions[at] if at < len(directions) else (directions or ["desc"])[-1]
            keys.append((name, direction))
        if not keys and directions:
            column, _ = default[0]
            keys = [(next(k for k, v in columns.items() if v == column), directions[0])]
    found: list[tuple[str, bool]] = []
    for key, direction in keys:
        if key not in columns:
            raise InvalidInput(f"cannot sort by {key[:50]!r}; possible are {', '.join(columns)}")
        if direction not in {"asc", "desc"}:
            raise InvalidInput(f"a sort direction is asc or desc, not {direction[:50]!r}")
        if all(column != columns[key] for column, _ in found):
            found.append((columns[key], direction == "desc"))
    return found or default


def flag(call: Call, name: str) -> bool | None:
    """Return a query parameter that is a truth value; None if it was not given.

    Raises:
        InvalidInput: it is neither true nor false.
    """
    text = call.param(name).lower()
    if not text:
        return None
    if text in {"true", "1", "yes", "t", "on"}:
        return True
    if text in {"false", "0", "no", "f", "off"}:
        return False
    raise InvalidInput(f"{name} must be true or false, not {text[:50]!r}")
