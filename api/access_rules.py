"""What an application credential with access rules is good for: the calls that one of them names.

A rule has a service (its type in the catalog), a method and a path. The path is that below the
service, or below the host; ``*`` and ``{name}`` stand for one segment of it, ``**`` for any number.
Invariant: what no rule names is refused; it takes no longer than rule and path are long together.
"""

from collections.abc import Iterable, Sequence

from schemas.identity import AccessRule


def permitted(
    rules: Iterable[AccessRule], service: str, method: str, path: str, prefix: str
) -> bool:
    """Return whether a rule names this call of a service below ``prefix``."""
    whole = path.split("/")
    below = path.removeprefix(prefix).split("/")
    return any(
        rule.service == service
        and rule.method == method
        and (matches(pattern := rule.path.split("/"), below) or matches(pattern, whole))
        for rule in rules
    )


def matches(pattern: Sequence[str], path: Sequence[str]) -> bool:
    """Return whether the segments of a path are those of a pattern."""
    # Where in the pattern one can be, having read so much of the path.
    places = _through(pattern, {0})
    for segment in path:
        moved: set[int] = set()
        for place in places:
            if place == len(pattern):
                continue
            wanted = pattern[place]
            if wanted == "**":
                moved.add(place)
            elif wanted == segment or (segment and _any_one(wanted)):
                moved.add(place + 1)
        places = _through(pattern, moved)
    return len(pattern) in places


def _through(pattern: Sequence[str], places: set[int]) -> set[int]:
    """Return the places with those reached by letting ``**`` stand for nothing."""
    found = set(places)
    for place in places:
        at = place
        while at < len(pattern) and pattern[at] == "**":
            at += 1
            found.add(at)
    return found


def _any_one(wanted: str) -> bool:
    return wanted == "*" or (len(wanted) > 2 and wanted[0] == "{" and wanted[-1] == "}")
