"""Servers as rendered before: what has not changed is not rendered again.

Invariant: bytes are kept under the ordinal that last changed what they show, so they are never old.
"""

from collections.abc import Sequence

from api.compute.views import server_view
from api.exchange import encode
from projections.answers import ServerView

KEPT_MAX = 20_000
BASES_MAX = 64


class Rendered:
    """Rendered servers of one edge."""

    def __init__(self) -> None:
        # By address and whether it says where they run, then by server.
        self._kept: dict[tuple[str, bool], dict[str, tuple[int, bytes]]] = {}

    def server(self, found: ServerView, base: str, *, host: bool) -> bytes:
        """Return a server in full, as JSON, for a client that reached us at ``base``.

        ``host``: with where it runs.
        """
        return self.servers([found], base, host=host)[0]

    def servers(self, found: Sequence[ServerView], base: str, *, host: bool) -> list[bytes]:
        """Return servers in full, each as JSON, as ``server`` does."""
        kept = self._of(base, host=host)
        result: list[bytes] = []
        for view in found:
            server_id = view.server.server_id
            entry = kept.get(server_id)
            if entry is None or entry[0] != view.ordinal:
                rendered = encode(server_view(view.server, view.addresses, base, host=host))
                entry = kept[server_id] = (view.ordinal, rendered)
            result.append(entry[1])
        return result

    def _of(self, base: str, *, host: bool) -> dict[str, tuple[int, bytes]]:
        if len(self._kept) > BASES_MAX or sum(map(len, self._kept.values())) >= KEPT_MAX:
            self._kept.clear()  # Whoever asks says by which name it reached us.
        return self._kept.setdefault((base, host), {})
