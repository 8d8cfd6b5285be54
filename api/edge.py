"""What every handler works with: the parts of one edge process, joined.

Built by ``api.run``, and by tests with the parts they have.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping

from msgspec import Struct, field
from prometheus_client import Histogram

from api.access import AccessLog
from api.auth import Authenticator, Principal
from api.compute.rendered import Rendered
from api.connections import Connections
from api.exchange import Call
from api.forwarded import Proxies
from api.freshness import Freshness
from api.limits import Limits
from api.lockouts import Lockouts
from api.metrics import DURATIONS
from api.oidc import Providers
from api.passwords import Passwords
from api.past import Pasts
from api.tokens import TokenRing
from api.used_codes import UsedCodes
from api.waiting import Waiter
from engine.bus.client import Bus
from engine.bus.keys import Keys
from engine.policy import Policies, Policy
from executors.storage.blob import Blobs
from projections.access import AccessReader
from projections.reader import Reader
from projections.sql.queries import Queries
from schemas.config import Config
from schemas.errors import InvalidInput
from schemas.policy import PolicyTable

METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
VISIBLE_S = 5.0  # how long a client waits for what it knows to be written


class Edge(Struct, kw_only=True):
    """One edge: its reader, its way to the engine, its keys."""

    config: Config
    bus: Bus
    keys: Keys
    blobs: Blobs
    reader: Reader
    waiter: Waiter
    ring: TokenRing
    authenticator: Authenticator
    passwords: Passwords
    access: AccessLog
    audit: AccessReader
    queries: Queries
    proxies: Proxies
    limits: Limits
    connections: Connections
    lockouts: Lockouts = field(default_factory=Lockouts)
    used_codes: UsedCodes = field(default_factory=UsedCodes)
    providers: Providers = field(default_factory=Providers)
    rendered: Rendered = field(default_factory=Rendered)
    freshness: Freshness = field(default_factory=Freshness)
    past: int = 0  # of a cloud of the past, its ordinal; 0: of the present
    pasts: Pasts = field(default_factory=Pasts)
    policies: Policies = field(default_factory=Policies)
    policy_table: PolicyTable = PolicyTable()
    policy_at: int = -1  # the position at which it was read
    described: Mapping[str, bytes] = {}  # documents of the API, by path
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    late_at: float = float("-inf")  # when a write was last not readable in time (monotonic)
    active: Counter[str] = field(default_factory=Counter)  # requests being answered, by api
    decisions: Counter[str] = field(default_factory=Counter)  # of the policy, by effect
    answered: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    streams: Counter[str] = field(default_factory=Counter)  # open feeds, by user
    durations: dict[tuple[str, str, int], Histogram] = field(default_factory=dict)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def position(self) -> int:
        """Return an ordinal that reads can see: the newest but for what came in a moment ago."""
        return self.waiter.position()

    def policy(self) -> Policy:
        """Return the policy in force, as the read model has it."""
        position = self.waiter.newest
        if position != self.policy_at:
            self.policy_at = position
            self.policy_table = self.reader.policy() or self.policy_table
        return self.policies.of(self.policy_table)

    async def authenticate(self, call: Call) -> tuple[Principal, int]:
        """Return who calls, and the position at which that was so.

        Raises:
            Unauthorized: there is no token, or it does not count.
            Unavailable: this node cannot know.
        """
        position = await self._position(call)
        await self.freshness.need()
        return await self.authenticator.principal(call.header(b"x-auth-token")), position

    async def _position(self, call: Call) -> int:
        """Return where reads are, once they show the ordinal that the client saw elsewhere."""
        wanted = call.header(b"x-cumulog-min-ordinal")
        if wanted:
            if not wanted.isascii() or not wanted.isdecimal() or len(wanted) > 16:
                raise InvalidInput("X-Cumulog-Min-Ordinal must be a whole number")
            if not await self.waiter.reached(int(wanted), VISIBLE_S):
                call.awaited = int(wanted)
        return self.waiter.position()

    def count(self, api: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request, for ``/metrics``."""
        # Whoever asks chooses the method, token or not: counters must not grow with what is sent.
        method = method if method in METHODS else "other"
        self.answered[api, method, status] += 1
        self.seconds[api] += seconds
        key = api, method, status // 100
        duration = self.durations.get(key)
        if duration is None:
            duration = self.durations[key] = DURATIONS.labels(api, method, f"{status // 100}xx")
        duration.observe(seconds)
