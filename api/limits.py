"""How much one address and one project may ask of an edge.

Each has a bucket of tokens that fills at its rate and holds what may be asked at once; it is kept
as one number, the time at which the bucket will be full again (GCRA). Invariant: what is kept is
bounded whoever asks, and a refusal costs less than an answer. The limits are those of one edge:
with several edges a client may ask as much of each.
"""

from collections.abc import Callable
from math import ceil
from time import monotonic

from api.errors import TooManyRequests
from api.forwarded import Origin
from schemas.config import Config
from schemas.errors import Unavailable

BURST_S = 10.0  # a bucket holds what comes in so long a time
SIGN_IN_BURST_S = 60.0
KEPT_MAX = 8192  # of each generation


class Buckets:
    """Buckets by key, all alike. ``rate`` is in tokens a second; 0 means no limit.

    The oldest half of what is kept is forgotten when there is too much of it, and so full again.
    """

    def __init__(
        self,
        rate: float,
        burst_s: float,
        *,
        kept_max: int = KEPT_MAX,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._interval = 1.0 / rate if rate > 0 else 0.0
        self._burst_s = max(burst_s, self._interval)
        self._kept_max = kept_max
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._older: dict[str, float] = {}

    def take(self, key: str) -> float:
        """Take a token; return 0, or, if there is none, in how many seconds there will be one."""
        interval = self._interval
        if not interval:
            return 0.0
        now = self._clock()
        kept = self._full_at
        full_at = kept.get(key)
        if full_at is None:
            full_at = self._remember(key, now)
        full_at = max(full_at, now) + interval
        wait = full_at - now - self._burst_s
        if wait > 0.0:
            return wait
        self._full_at[key] = full_at
        return 0.0

    def give_back(self, key: str) -> None:
        """Put the token back that was taken last."""
        full_at = self._full_at.get(key)
        if full_at is not None:
            self._full_at[key] = full_at - self._interval

    def _remember(self, key: str, now: float) -> float:
        if len(self._full_at) >= self._kept_max:
            self._older, self._full_at = self._full_at, {}
        full_at = self._older.pop(key, now)
        self._full_at[key] = full_at
        return full_at

    def __len__(self) -> int:
        return len(self._full_at) + len(self._older)


class Limits:
    """The limits of one edge."""

    def __init__(self, config: Config) -> None:
        self.under_way = 0  # requests that are being answered
        self._most = config.requests_max
        self._addresses = Buckets(config.requests_per_address_s, BURST_S)
        self._projects = Buckets(config.requests_per_project_s, BURST_S)
        self._sign_ins = Buckets(config.sign_ins_per_address_min / 60.0, SIGN_IN_BURST_S)

    def request(self, origin: Origin) -> None:
        """Count a request of an address.

        Raises:
            TooManyRequests: it has sent more than it may.
            Unavailable: more requests are being answered than can be in good time.
        """
        if self.under_way > self._most:
            raise Unavailable("too many requests are being answered at once")
        self.probe(origin)

    def probe(self, origin: Origin) -> None:
        """Count what is asked of the process itself, which is told however much there is to do.

        Raises:
            TooManyRequests: the address has sent more than it may.
        """
        if origin.limited and (wait := self._addresses.take(origin.limited)):
            raise _refusal("your address sends too many requests", wait)

    def project(self, project_id: str) -> None:
        """Count a request of a project.

        Raises:
            TooManyRequests: it has sent more than it may.
        """
        if project_id and (wait := self._projects.take(project_id)):
            raise _refusal("your project sends too many requests", wait)

    def sign_in(self, origin: Origin) -> None:
        """Count an attempt to sign in.

        Raises:
            TooManyRequests: too many from this address have failed.
        """
        if origin.limited and (wait := self._sign_ins.take(origin.limited)):
            raise _refusal("too many attempts to sign in from your address have failed", wait)

    def signed_in(self, origin: Origin) -> None:
        """Note that the attempt was good; only those that fail count."""
        if origin.limited:
            self._sign_ins.give_back(origin.limited)


def _refusal(reason: str, wait_s: float) -> TooManyRequests:
    return TooManyRequests(reason, retry_after=ceil(wait_s))
