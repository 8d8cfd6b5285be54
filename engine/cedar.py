"""The policy's table as Cedar policies (https://www.cedarpolicy.com), for those who analyse them.

One ``permit`` an entry; what none permits Cedar refuses, as the table does. A principal has
``scope`` ("project", "domain", "system", "" or engine, agent, edge), ``roles`` (implied ones
included), and the ids of its ``user``, ``project`` and ``domain``; a resource has those of whom it
belongs to. Invariant: Cedar permits a request if and only if the table lets that principal reach
that resource.
"""

from collections.abc import Iterator, Mapping

from schemas.policy import Who, parse

_OVER = {
    "any": "",
    "project": "resource.project == principal.project",
    "domain": "resource.domain == principal.domain",
    "self": "resource.user == principal.user",
}
_PROCESSES = ("engine", "agent", "edge")


def cedar(rules: Mapping[str, tuple[str, ...]]) -> str:
    """Return the policies of a table."""
    return "\n".join(_permits(rules))


def _permits(rules: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    for action, entries in sorted(rules.items()):
        for entry in entries:
            conditions = " && ".join(_conditions(parse(entry)))
            yield f'@entry("{entry}")'
            yield f'permit (principal, action == Action::"{action}", resource)'
            yield f"when {{ {conditions} }};"


def _conditions(who: Who) -> Iterator[str]:
    match who.scope:
        case "cloud":
            yield '["system", "project"].contains(principal.scope)'
        case "user":
            processes = ", ".join(f'"{process}"' for process in _PROCESSES)
            yield f"!([{processes}].contains(principal.scope))"
        case scope:
            yield f'principal.scope == "{scope}"'
    if who.role:
        yield f'principal.roles.contains("{who.role}")'
    if _OVER[who.target]:
        yield _OVER[who.target]
