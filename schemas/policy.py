"""Policy: who may do what, as a table that an operator reads, and changes by an event.

An action is named by its type (``CreateServer``), what is read by ``service:things:read``. Each has
a list of whom it is for; what is not listed is refused. An entry is one of::

    ROLE in SCOPE [over TARGET]     somebody whose token has the role in that scope
    user over self                  anybody signed in, about their own things
    user over any                   anybody signed in, whatever their token's scope
    engine, agent, edge             the engine's clock; a host's agent, about its own host; an edge

``SCOPE`` is system, domain, project, or cloud: the system, or any project (the role admin given on
a project rules the whole cloud, as in OpenStack's default policies). ``TARGET`` says whose things:
any, those of the token's domain, of the token's project, or of the user (self). Where it is left
out it follows from the scope: any for cloud and system, else that very domain or project. Roles
imply weaker ones, so that ``member in project`` also lets in the project's administrators.
"""

import re
import tomllib
from importlib.resources import files
from typing import Annotated, Literal

from msgspec import Meta, Struct

type Scope = Literal["cloud", "system", "domain", "project", "user", "engine", "agent", "edge"]
type Target = Literal["any", "domain", "project", "self"]

Entry = Annotated[str, Meta(min_length=1, max_length=128)]
ActionName = Annotated[
    str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_:-]*\Z")
]

_BY_SCOPE: dict[str, Target] = {
    "cloud": "any",
    "system": "any",
    "domain": "domain",
    "project": "project",
}
_TARGETS: dict[str, tuple[str, ...]] = {
    "cloud": ("any", "self"),
    "system": ("any", "self"),
    "domain": ("any", "domain", "self"),
    "project": ("any", "project", "self"),
}
_ENTRY = re.compile(
    r"(?P<role>[A-Za-z0-9_-]{1,64}) in (?P<scope>cloud|system|domain|project)"
    r"(?: over (?P<target>any|domain|project|self))?\Z"
)
_FIXED: dict[str, tuple[Scope, Target]] = {
    "user over self": ("user", "self"),
    "user over any": ("user", "any"),
    "engine": ("engine", "any"),
    "agent": ("agent", "any"),
    "edge": ("edge", "any"),
}


class Who(Struct, frozen=True):
    """One entry of a rule, understood. ``role`` is empty where none is needed."""

    text: str
    role: str
    scope: Scope
    target: Target

    @property
    def internal(self) -> bool:
        """Whether it speaks of the cloud's own processes, which no operator lets in or out."""
        return self.scope in {"engine", "agent", "edge"}


class BadEntry(ValueError):
    """A text is no entry of a rule."""


def parse(text: str) -> Who:
    """Return an entry, understood.

    Raises:
        BadEntry: it is none; the message says how one looks.
    """
    fixed = _FIXED.get(text)
    if fixed is not None:
        return Who(text, "", *fixed)
    found = _ENTRY.match(text)
    if found is None:
        raise BadEntry(
            f"{text!r} is not «ROLE in cloud|system|domain|project [over TARGET]» with a target "
            "any, domain, project or self, nor «user over self» or «user over any»"
        )
    role, scope = found["role"], found["scope"]
    target = found["target"] or _BY_SCOPE[scope]
    if target not in _TARGETS[scope]:
        raise BadEntry(f"{text!r}: a token of scope {scope} has no {target}")
    return Who(text, role, scope, target)  # type: ignore[arg-type]  # matched above


def _default() -> dict[str, tuple[str, ...]]:
    table = tomllib.loads(files("schemas").joinpath("policy.toml").read_text())
    return {
        action: tuple(entries) for section in table.values() for action, entries in section.items()
    }


DEFAULT: dict[str, tuple[str, ...]] = _default()


class PolicyTable(Struct, frozen=True, kw_only=True):
    """What an operator has set: rules that replace those of the default table.

    ``version`` counts changes from 1; 0 is the default table as it comes.
    """

    version: int = 0
    rules: dict[str, tuple[str, ...]] = {}


# Actions


class SetPolicy(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Replace rules of the policy; None puts one back to its default, an empty list refuses all."""

    rules: Annotated[
        dict[ActionName, Annotated[tuple[Entry, ...], Meta(max_length=32)] | None],
        Meta(min_length=1, max_length=1000),
    ]


type PolicyAction = SetPolicy

# Facts


class PolicySet(Struct, frozen=True, kw_only=True, tag="policy.set.v1", tag_field="type"):
    """From the next request on this table, over the defaults, says who may do what. Not metered."""

    table: PolicyTable


type PolicyFact = PolicySet
