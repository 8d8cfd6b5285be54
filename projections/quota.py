"""Read models of quotas: limits that were set, and what each project holds.

What is held is added up by the decider's own functions, so that what a person reads is what a
decision looked at.
"""

from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct

from engine.domain.usage import CHANGES, Held, count
from projections.compute import SERVERS
from projections.image import IMAGES
from projections.network import NETWORKS, PORTS, SECURITY_GROUPS, SUBNETS
from projections.store import Table, Writer
from schemas import quota as s
from schemas.compute import Server
from schemas.identity import ProjectDeleted
from schemas.image import Image
from schemas.network import Network, Port, SecurityGroup, Subnet
from schemas.units import Micros, Ordinal

NAME = "quota"
VERSION = 2
CLASS = "default"  # no project's id: those have 32 digits


class Limits(Struct, frozen=True):
    """The limits that were set for a project, or for the class."""

    owner: str
    limits: dict[str, int]


class Use(Struct, frozen=True):
    """What a project holds; what it holds nothing of is left out."""

    owner: str
    held: Held


QUOTAS = Table("quotas", Limits, columns="id TEXT NOT NULL", values=lambda limits: (limits.owner,))
USAGE = Table("usage", Use, columns="id TEXT NOT NULL", values=lambda use: (use.owner,))

STATEMENTS = (*QUOTAS.create, *USAGE.create)


class _Found[T](Mapping[str, T]):
    """A table, as far as it is read by key."""

    def __init__(self, find: Callable[[str], T]) -> None:
        self._find = find

    def __getitem__(self, key: str) -> T:
        return self._find(key)

    def __iter__(self) -> Iterator[str]:
        raise NotImplementedError("nobody lists what is there before a fact")

    def __len__(self) -> int:
        raise NotImplementedError("nobody lists what is there before a fact")


class _Before:
    """What the read model has before a fact."""

    def __init__(self, writer: Writer) -> None:
        def among[T: Struct](table: Table[T]) -> _Found[T]:
            return _Found(lambda key: _there(writer.find(table, key)))

        self.servers: Mapping[str, Server] = _Found(
            lambda key: _there(writer.find(SERVERS, key)).server
        )
        self.images: Mapping[str, Image] = among(IMAGES)
        self.networks: Mapping[str, Network] = among(NETWORKS)
        self.subnets: Mapping[str, Subnet] = among(SUBNETS)
        self.ports: Mapping[str, Port] = among(PORTS)
        self.security_groups: Mapping[str, SecurityGroup] = among(SECURITY_GROUPS)


def _there[T](found: T | None) -> T:
    assert found is not None, "a fact speaks of what is there"
    return found


def follow(writer: Writer, fact: Struct, ordinal: Ordinal) -> None:
    """Do what a fact of any area means for quotas; to be called before the fact is applied."""
    if isinstance(fact, ProjectDeleted):
        writer.drop(QUOTAS, fact.project_id)
    changes = CHANGES.get(type(fact))
    if changes is None:
        return
    due = list(changes(_Before(writer), fact))
    usage: dict[str, Held] = {}
    for owner in {owner for owner, _, _ in due}:
        use = writer.find(USAGE, owner)
        if use is not None:
            usage[owner] = dict(use.held)
    before = set(usage)
    count(usage, due)
    for owner, held in usage.items():
        writer.put(USAGE, Use(owner, held), ordinal)
    for owner in before - usage.keys():
        writer.drop(USAGE, owner)


def _set(writer: Writer, fact: s.QuotaSet, ordinal: Ordinal, _at: Micros) -> None:
    _add(writer, fact.project_id, fact.limits, ordinal)


def _class_set(writer: Writer, fact: s.QuotaClassSet, ordinal: Ordinal, _at: Micros) -> None:
    _add(writer, CLASS, fact.limits, ordinal)


def _add(writer: Writer, owner: str, limits: dict[str, int], ordinal: Ordinal) -> None:
    old = writer.find(QUOTAS, owner)
    held = {} if old is None else old.limits
    writer.put(QUOTAS, Limits(owner, {**held, **limits}), ordinal)


def _reset(writer: Writer, fact: s.QuotaReset, ordinal: Ordinal, _at: Micros) -> None:
    old = writer.find(QUOTAS, fact.project_id)
    left = {} if old is None else {n: v for n, v in old.limits.items() if n not in fact.names}
    if left:
        writer.put(QUOTAS, Limits(fact.project_id, left), ordinal)
    else:
        writer.drop(QUOTAS, fact.project_id)


APPLY = {s.QuotaSet: _set, s.QuotaReset: _reset, s.QuotaClassSet: _class_set}
