"""Read model of what each project holds.

It is added up by the decider's own functions, so that what a person reads is what a decision looked
at.
"""

from collections.abc import Callable, Sequence

from msgspec import Struct

from engine.domain.usage import CHANGES, Change, Held, Lookup, count
from projections.compute import SERVERS
from projections.image import IMAGES
from projections.network import NETWORKS, PORTS, SECURITY_GROUPS, SUBNETS
from projections.store import Table, Writer
from schemas.compute import Server
from schemas.image import Image
from schemas.network import Network, Port, SecurityGroup, Subnet
from schemas.units import Ordinal

NAME = "usage"
VERSION = 1


class Use(Struct, frozen=True):
    """What a project holds; what it holds nothing of is left out."""

    owner: str
    held: Held


USAGE = Table("usage", Use, columns="id TEXT NOT NULL", values=lambda use: (use.owner,))

STATEMENTS = USAGE.create
APPLY: dict[type, Callable[..., None]] = {}  # no fact is about it alone; see ``changes``


class _Found[T](Lookup[T]):
    """A table, as far as it is read by key."""

    def __init__(self, find: Callable[[str], T]) -> None:
        self._find = find

    def __getitem__(self, key: str) -> T:
        return self._find(key)


class _Before:
    """What the read model has before a fact."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def _among[T: Struct](self, table: Table[T]) -> _Found[T]:
        return _Found(lambda key: self._writer.need(table, key))

    @property
    def servers(self) -> Lookup[Server]:
        return _Found(lambda key: self._writer.need(SERVERS, key).server)

    @property
    def images(self) -> Lookup[Image]:
        return self._among(IMAGES)

    @property
    def networks(self) -> Lookup[Network]:
        return self._among(NETWORKS)

    @property
    def subnets(self) -> Lookup[Subnet]:
        return self._among(SUBNETS)

    @property
    def ports(self) -> Lookup[Port]:
        return self._among(PORTS)

    @property
    def security_groups(self) -> Lookup[SecurityGroup]:
        return self._among(SECURITY_GROUPS)


def changes(writer: Writer, fact: Struct) -> Sequence[Change]:
    """Return what a fact changes of what is counted; to be asked before the fact is applied."""
    found = CHANGES.get(type(fact))
    return () if found is None else found(_Before(writer), fact)


def add(writer: Writer, due: Sequence[Change], ordinal: Ordinal) -> None:
    """Add what a record's facts changed."""
    usage: dict[str, Held] = {}
    owners = {owner for owner, _, _ in due}
    for owner in owners:
        use = writer.find(USAGE, owner)
        if use is not None:
            usage[owner] = dict(use.held)
    count(usage, due)
    for owner in owners:
        if owner in usage:
            writer.put(USAGE, Use(owner, usage[owner]), ordinal)
        else:
            writer.drop(USAGE, owner)
