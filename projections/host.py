"""Read model of hosts. Drift changes nothing that is desired; it is in the timeline."""

import msgspec

from projections.store import Table, Writer
from schemas import host as s
from schemas.units import Micros, Ordinal

NAME = "host"
VERSION = 1

HOSTS = Table(
    "hosts",
    s.Host,
    columns="id TEXT NOT NULL, status TEXT NOT NULL",
    values=lambda h: (h.host_id, h.status),
)

STATEMENTS = HOSTS.create


def _host_registered(writer: Writer, fact: s.HostRegistered, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(HOSTS, fact.host, ordinal)


def _host_marked(writer: Writer, fact: s.HostMarked, ordinal: Ordinal, at: Micros) -> None:
    host = writer.find(HOSTS, fact.host_id)
    assert host is not None, f"{fact.host_id} was marked before it registered"
    writer.put(HOSTS, msgspec.structs.replace(host, status=fact.status, updated_at=at), ordinal)


def _nothing(_writer: Writer, _fact: s.HostDriftDetected, _ordinal: Ordinal, _at: Micros) -> None:
    """Drift that was put right leaves the host as it was said to be."""


APPLY = {
    s.HostRegistered: _host_registered,
    s.HostMarked: _host_marked,
    s.HostDriftDetected: _nothing,
}
