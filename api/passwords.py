"""Passwords: hashed with argon2id (RFC 9106) at the edge, in threads, a few at a time.

Invariant: checking a wrong password takes as long as checking one of a user who does not exist, and
logins waiting for a turn are bounded, so that they cannot starve the rest.
"""

import asyncio
import secrets
from collections.abc import Callable

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from schemas.errors import InvalidInput, Unavailable

PASSWORD_CHARS_MAX = 4096
AT_ONCE = 2
WAITING_MAX = 128

# 17 ms at two passes over 19 MiB (OWASP's second choice): a login must be cheap for the CLI.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


class Passwords:
    """Hashes and verifies, a few at a time."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self.checks = 0  # passwords that were compared with a hash, somebody's or nobody's
        self._nobody = _hasher.hash(secrets.token_hex(16))

    async def hash(self, password: str) -> str:
        """Return the argon2id hash in its encoded form.

        Raises:
            InvalidInput: the password is empty or too long.
            Unavailable: too many are waiting.
        """
        if not 1 <= len(password) <= PASSWORD_CHARS_MAX:
            raise InvalidInput(f"a password has 1 to {PASSWORD_CHARS_MAX} characters")
        return await self._run(_hasher.hash, password)

    async def verify(self, encoded: str | None, password: str) -> bool:
        """Return whether the password is that of the hash; None takes as long and is False.

        Raises:
            Unavailable: too many are waiting.
        """
        known = encoded is not None and len(password) <= PASSWORD_CHARS_MAX
        self.checks += 1
        matches = await self._run(
            _matches, encoded if known and encoded else self._nobody, password[:PASSWORD_CHARS_MAX]
        )
        return matches and known

    async def _run[**P, R](self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._waiting >= WAITING_MAX:
            raise Unavailable("too many sign-ins at once")
        self._waiting += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(work, *args, **kwargs)
        finally:
            self._waiting -= 1


def _matches(encoded: str, password: str) -> bool:
    try:
        return _hasher.verify(encoded, password)
    except (VerificationError, InvalidHashError):
        return False
