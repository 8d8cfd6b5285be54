"""Servers as rendered before: what has not changed is not rendered again.

Invariant: bytes are kept under the ordinal that last changed what they show, so they are never old.
"""

from api.compute.views import server_view
from api.exchange import encode
from projections.answers import ServerView

KEPT_MAX = 20_000


class Rendered:
    """Rendered servers of one edge."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, bool], tuple[int, bytes]] = {}

    def server(self, found: ServerView, base: str, *, admin: bool) -> bytes:
        """Return a server in full, as JSON, for a client that reached us at ``base``."""
        key = (found.server.server_id, base, admin)
        kept = self._kept.get(key)
        if kept is not None and kept[0] == found.ordinal:
            return kept[1]
        rendered = encode(server_view(found.server, found.addresses, base, admin=admin))
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        self._kept[key] = (found.ordinal, rendered)
        return rendered
