"""What all of network's collections have in common: filters, fields, pages.

Any attribute of an object filters it, repeated ones mean any of them; filters by what no object has
are ignored. ``fields`` cuts views down to exactly those.
"""

from collections.abc import Callable, Sequence
from typing import Any

from api.exchange import Answer, Call, json_answer
from api.pagination import flag, next_href, page_of, sort_of
from projections.answers import MarkerNotFound

type View = dict[str, Any]

SORT = {"id": "id", "name": "name", "project_id": "project_id", "tenant_id": "project_id",
        "created_at": "created_at"}  # fmt: skip
_CONTROL = frozenset(
    {"limit", "marker", "page_reverse", "sort_key", "sort_dir", "fields", "not-tags",
     "not-tags-any"}
)  # fmt: skip

LISTED_BY = (
    "limit", "marker", "page_reverse", "sort_key", "sort_dir", "fields", "id", "name",
    "project_id", "tenant_id", "description",
)  # fmt: skip


def project_filter(call: Call) -> str | None:
    """Return the project whose objects are wanted; None means all that the caller may see."""
    return call.param("project_id") or call.param("tenant_id") or None


def several(call: Call, name: str) -> list[str] | None:
    """Return the values of a filter; None if it was not given."""
    return call.params(name) or None


def cut(call: Call, view: View) -> View:
    """Return the view with the fields that were asked for."""
    wanted = set(call.params("fields"))
    return {k: v for k, v in view.items() if k in wanted} if wanted else view


def shown(call: Call, name: str, view: View, status: int = 200) -> Answer:
    """Return one object as the answer."""
    return json_answer({name: cut(call, view)}, status)


def listed[T](
    call: Call,
    name: str,
    fetch: Callable[[Sequence[tuple[str, bool]], str | None, int | None], list[T]],
    views: Callable[[list[T]], list[View]],
    by_reader: frozenset[str],
) -> Answer:
    """Return a collection.

    ``fetch(sort, marker, limit)`` reads; it applies the filters named in ``by_reader``. All others
    are applied here, and then so are the pages.
    """
    page = page_of(call)
    reverse = flag(call, "page_reverse") or False
    extra = _filters(call, by_reader)
    sort = sort_of(call, SORT, [("id", False)])
    if reverse:  # What comes before the marker comes after it in the opposite order.
        sort = [(column, not down) for column, down in sort]
    if page.limit == 0:
        found = []
    elif extra:
        matching = [v for v in views(fetch(sort, None, None)) if _matches(v, extra)]
        found = after(matching, page.marker)[: page.limit]
    else:
        found = views(fetch(sort, page.marker, page.limit))
    full = len(found) == page.limit
    if reverse:
        found.reverse()
    body: dict[str, Any] = {name: [cut(call, v) for v in found]}
    if (
        found
        and (page.asked or full)
        and (links := _links(call, found, reverse=reverse, full=full))
    ):
        body[f"{name}_links"] = links
    return json_answer(body)


def _links(call: Call, found: list[View], *, reverse: bool, full: bool) -> list[dict[str, str]]:
    """Return the ways on and back: where it goes on a page is full, back there is a marker."""
    links: list[dict[str, str]] = []
    if not found:
        return links
    if call.param("marker") if reverse else full:
        links.append({"rel": "next", "href": next_href(call, found[-1]["id"])})
    if full if reverse else call.param("marker"):
        href = next_href(call, found[0]["id"], reverse=True)
        links.append({"rel": "previous", "href": href})
    return links


def _filters(call: Call, by_reader: frozenset[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for key, value in call.query:
        if key not in _CONTROL and key not in by_reader:
            found.setdefault(key, set()).add(value)
    return found


def _matches(view: View, filters: dict[str, set[str]]) -> bool:
    return all(_has(view, key, wanted) for key, wanted in filters.items())


def _has(view: View, key: str, wanted: set[str]) -> bool:
    if key in {"tags", "tags-any"}:
        return False  # Nothing is tagged.
    if key == "fixed_ips":
        held = {f"{k}={v}" for fixed in view.get(key, []) for k, v in fixed.items()}
        return wanted <= held
    if key not in view:
        return True
    value = view[key]
    if isinstance(value, bool):
        return str(value).lower() in {_truth(w) for w in wanted}
    if isinstance(value, list):
        return any(w in value for w in wanted)
    return ("" if value is None else str(value)) in wanted


def _truth(text: str) -> str:
    lowered = text.lower()
    return {"1": "true", "0": "false"}.get(lowered, lowered)


def ordered(views: list[View], sort: Sequence[tuple[str, bool]]) -> list[View]:
    """Return views in the order that the read model would have them in; the id comes last."""
    for column, down in reversed([*sort, ("id", sort[0][1])]):
        views = sorted(views, key=lambda v: str(v.get(column) or ""), reverse=down)
    return views


def after(views: list[View], marker: str | None) -> list[View]:
    """Return the views that come after the one with the marker as its id.

    Raises:
        MarkerNotFound: there is none.
    """
    if marker is None:
        return views
    for at, view in enumerate(views):
        if view["id"] == marker:
            return views[at + 1 :]
    raise MarkerNotFound(f"the marker {marker[:64]!r} is not in the list")
