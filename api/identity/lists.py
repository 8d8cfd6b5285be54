"""What lists and looked-up things of identity have in common: links, filters, whose they are."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from api.exchange import Answer, Call, json_answer
from engine.domain.context import Reach
from schemas.errors import Forbidden, NotFound

type View = dict[str, Any]

_TESTS: Mapping[str, Callable[[str, str], bool]] = {
    "contains": lambda value, wanted: wanted in value,
    "icontains": lambda value, wanted: wanted.casefold() in value.casefold(),
    "startswith": lambda value, wanted: value.startswith(wanted),
    "istartswith": lambda value, wanted: value.casefold().startswith(wanted.casefold()),
    "endswith": lambda value, wanted: value.endswith(wanted),
    "iendswith": lambda value, wanted: value.casefold().endswith(wanted.casefold()),
    "iexact": lambda value, wanted: value.casefold() == wanted.casefold(),
}
# Names can be asked for by their parts as well.
BY_NAME = ("name", *(f"name__{test}" for test in _TESTS))


def link(call: Call, path: str) -> dict[str, str]:
    """Return the link to a thing below ``/v3/``."""
    return {"self": f"{call.base}/identity/v3/{path}"}


def list_links(call: Call) -> dict[str, str | None]:
    """Return the links of the list that was asked for; it always comes whole."""
    query = f"?{call.query_string}" if call.query_string else ""
    return {"self": call.base + call.path + query, "previous": None, "next": None}


def listing(call: Call, name: str, items: Iterable[View]) -> Answer:
    """Return a collection with identity's links, less those whose name is not as asked."""
    found = list(items)
    for key, wanted in call.query:
        attribute, _, test = key.partition("__")
        if test in _TESTS:
            fits = _TESTS[test]
            found = [v for v in found if fits(str(v.get(attribute) or ""), wanted)]
    return json_answer({name: found, "links": list_links(call)})


def in_domain(call: Call, reach: Reach, domain_id: str) -> bool:
    """Say whether a permission reaches into a domain."""
    return reach.any or (reach.domain and call.principal.token.domain_id == domain_id)


def domain_asked(call: Call, reach: Reach) -> str | None:
    """Return the domain whose things are listed, None for all; "" where nothing can be seen.

    Raises:
        Forbidden: the permission reaches no domain.
    """
    asked = call.param("domain_id") or None
    if reach.any:
        return asked
    if not reach.domain:
        raise Forbidden(f"{reach.rule} is not for lists")
    own = call.principal.token.domain_id
    return own if asked in {None, own} else ""


def unseen(reach: Reach, what: str, ident: str) -> Exception:
    """Return what to raise where a thing is not there, or not the caller's to see.

    To whoever sees others' things it is not there; who sees only their own is told that, whether
    it is there or not.
    """
    if reach.any or reach.domain:
        return NotFound(f"there is no {what} {ident[:64]!r}")
    return Forbidden(f"a {what} that is not yours is shown to administrators and auditors only")
