"""Microversions: which of its versions a service speaks with one client.

A service declares the range it honours once; the headers of every answer, the discovery documents
and the routes that a request can reach are made from that. Invariant: a version outside the range
is never spoken, and one inside it never refused.
"""

import re
from functools import lru_cache

from msgspec import Struct

from api.errors import NotAcceptable
from api.exchange import Call, Header, Version
from schemas.errors import InvalidInput

LOWEST: Version = (0, 0)
HIGHEST: Version = (999_999, 999_999)

_VERSION = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\Z")
_STANDARD = b"openstack-api-version"


def parse(text: str) -> Version | None:
    """Return a version's numbers; None if it is none."""
    match = _VERSION.match(text)
    return (int(match[1]), int(match[2])) if match else None


def written(version: Version) -> str:
    """Return a version as headers and documents write it."""
    return f"{version[0]}.{version[1]}"


class Versions(Struct, frozen=True, kw_only=True):
    """The range of one service. ``legacy`` is an older header that has the bare number."""

    service: str
    minimum: Version
    maximum: Version
    legacy: str = ""

    def asked(self, call: Call) -> Version:
        """Return the version that a request asks for: the minimum if for none.

        Raises:
            InvalidInput: what it asks for is no version.
            NotAcceptable: it is not on offer.
        """
        text = self._asked(call)
        if text is None:
            return self.minimum
        if text.lower() == "latest":
            return self.maximum
        version = parse(text)
        if version is None:
            raise InvalidInput(f"{text[:50]!r} is not a version of {self.service}")
        if not self.minimum <= version <= self.maximum:
            low, high = written(self.minimum), written(self.maximum)
            raise NotAcceptable(
                f"version {text} is not on offer: the minimum is {low}, the maximum {high}",
                min_version=low,
                max_version=high,
            )
        return version

    def _asked(self, call: Call) -> str | None:
        """Return what stands for this service in the headers; the last one counts."""
        found: str | None = None
        if call.header(_STANDARD):
            for pair in ",".join(call.headers(_STANDARD)).split(","):
                name, _, version = pair.strip().partition(" ")
                if name.lower() == self.service:
                    found = version.strip()
        if found is None and self.legacy:
            return call.header(self.legacy.lower().encode("ascii")) or None
        return found

    def headers(self, version: Version) -> list[Header]:
        """Return the headers that tell a client, and caches, which version an answer is of."""
        return _headers(self, version)


@lru_cache(maxsize=1024)  # there are no more versions than a service declares
def _headers(versions: Versions, version: Version) -> list[Header]:
    number = written(version).encode("ascii")
    vary = b"OpenStack-API-Version"
    told = [(_STANDARD, versions.service.encode("ascii") + b" " + number)]
    if versions.legacy:
        vary += b", " + versions.legacy.encode("ascii")
        told.append((versions.legacy.lower().encode("ascii"), number))
    return [*told, (b"vary", vary)]
