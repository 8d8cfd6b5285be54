"""The numbers of ports and networks in packet rules: unique on the host, and kept.

A packet carries its sender's number from one rule to the next, so a number must not pass to another
port while rules are replaced; that is why they survive the agent. A number is free again once its
port is gone from the rules.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from executors.errors import NetworkError
from executors.network.rules import PORTS_MOST, Numbers


class _Kept(Struct):
    ports: dict[str, int] = {}
    networks: dict[str, int] = {}


class NumberBook:
    """Hands out numbers, and writes them down before they are used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
        except (FileNotFoundError, msgspec.DecodeError):
            self._kept = _Kept()

    def networks(self) -> dict[str, int]:
        """Return the numbers that networks have now."""
        return dict(self._kept.networks)

    def assign(self, ports: Iterable[str], networks: Iterable[str]) -> Numbers:
        """Return the numbers of exactly these, keeping those that they have.

        Raises:
            NetworkError: there are more ports than numbers.
        """
        kept = _Kept(
            ports=_assigned(self._kept.ports, ports),
            networks=_assigned(self._kept.networks, networks),
        )
        if kept != self._kept:
            beside = self._path.with_suffix(".new")
            beside.write_bytes(msgspec.json.encode(kept))
            beside.replace(self._path)
            self._kept = kept
        return Numbers(ports=dict(kept.ports), networks=dict(kept.networks))


def _assigned(before: dict[str, int], keys: Iterable[str]) -> dict[str, int]:
    wanted = sorted(set(keys))
    kept = {key: before[key] for key in wanted if key in before}
    taken = set(kept.values())
    free = (n for n in range(1, PORTS_MOST + 1) if n not in taken)
    for key in wanted:
        if key not in kept:
            number = next(free, None)
            if number is None:
                raise NetworkError(f"this host has no room for more than {PORTS_MOST} ports")
            kept[key] = number
    return kept
