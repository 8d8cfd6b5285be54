"""Keeps those out for a while who guess at one user's secrets.

Failed attempts of a user are counted by this edge alone and in memory: with several edges somebody
may guess as often at each, and an edge that starts again has forgotten. They are counted for each
method: whoever knows a user's password gets no more guesses at its codes by showing that.
Invariant: what is kept is bounded, and only for users that there are; whoever is kept out is told,
and made to wait, no other than somebody whose password is wrong.
"""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from msgspec import Struct

from schemas.identity import PasswordPolicy, User

KEPT_MAX = 16_384
PASSWORD, TOTP = "password", "totp"  # methods


class Failures(Struct):
    """How often in a row it went wrong, and when last (monotonic seconds)."""

    count: int = 0
    at: float = 0.0


class Lockouts:
    """The failed attempts that one edge has seen."""

    def __init__(self, *, kept_max: int = KEPT_MAX, clock: Callable[[], float] = monotonic) -> None:
        self._kept_max = kept_max
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], Failures] = OrderedDict()
        self.begun = 0  # how often a user was locked out
        self.refused = 0  # attempts that were refused for it

    def __len__(self) -> int:
        return len(self._failures)

    def holds(self, policy: PasswordPolicy, user: User, method: str = PASSWORD) -> bool:
        """Return whether a user is kept out now."""
        failures = self._failures.get((user.user_id, method))
        if failures is None or not _counts(policy, user):
            return False
        if self._clock() - failures.at >= policy.lockout_s:
            del self._failures[user.user_id, method]
            return False
        return failures.count >= policy.lockout_attempts

    def failed(self, policy: PasswordPolicy, user: User, method: str = PASSWORD) -> bool:
        """Count an attempt that went wrong; return whether the user is kept out from now on.

        An attempt of somebody who is kept out already does not make it longer.
        """
        if not _counts(policy, user):
            return False
        if self.holds(policy, user, method):
            return False
        failures = self._failures.setdefault((user.user_id, method), Failures())
        failures.count += 1
        failures.at = self._clock()
        self._failures.move_to_end((user.user_id, method))
        while len(self._failures) > self._kept_max:
            self._failures.popitem(last=False)
        begins = failures.count == policy.lockout_attempts
        self.begun += begins
        return begins

    def succeeded(self, user: User, method: str = PASSWORD) -> None:
        """Forget what went wrong before."""
        self._failures.pop((user.user_id, method), None)


def _counts(policy: PasswordPolicy, user: User) -> bool:
    return policy.lockout_attempts > 0 and not user.options.ignore_lockout_failure_attempts
