"""Who is asking: a token's holder, looked up in the read model.

Invariant: a token counts only while it has not expired or been revoked, its user is enabled and has
not ended its tokens, and its project is enabled and still gives the user a role. What was found is
kept for ``FRESH_S`` at most, and forgotten when this edge has changed identity itself; writes are
checked again by the engine in its own state.
"""

from collections import OrderedDict
from time import monotonic, time_ns

from api.tokens import Token, TokenRing
from projections.reader import Reader
from schemas.envelope import Actor
from schemas.errors import Unauthorized
from schemas.identity import Project, User

KEPT_MAX = 4096
FRESH_S = 0.05  # no longer than a read model lags behind

IMPLIED: dict[str, tuple[str, ...]] = {
    "admin": ("admin", "member", "reader"),
    "member": ("member", "reader"),
    "reader": ("reader",),
}


def now() -> int:
    """Return this edge's clock in microseconds."""
    return time_ns() // 1000


class Principal:
    """A verified caller."""

    __slots__ = (
        "actor",
        "is_admin",
        "project",
        "project_id",
        "role_set",
        "roles",
        "scope",
        "token",
        "user",
        "user_id",
    )

    def __init__(
        self, token: Token, user: User, project: Project | None, roles: tuple[str, ...]
    ) -> None:
        self.token = token
        self.user = user
        self.project = project
        self.roles = roles
        self.user_id = user.user_id
        self.project_id = token.project_id
        self.is_admin = "admin" in roles
        self.role_set = frozenset(roles)
        self.actor = Actor(
            kind="user",
            user_id=user.user_id,
            project_id=token.project_id,
            roles=roles,
            audit_id=token.audit_id,
            issued_at=token.issued_at,
        )
        self.scope = self.actor.scope


class Authenticator:
    """Turns tokens into principals."""

    def __init__(self, ring: TokenRing, reader: Reader) -> None:
        self._ring = ring
        self._reader = reader
        self._opened: OrderedDict[str, Token] = OrderedDict()
        self._found: dict[str, tuple[float, Principal]] = {}

    def forget(self) -> None:
        """Look everybody up again: identity has changed."""
        self._found.clear()

    async def principal(self, text: str) -> Principal:
        """Return the holder of a token.

        Raises:
            Unauthorized: it is no token of ours, or does not count any more.
        """
        token = self._opened.get(text)
        if token is None:
            token = await self._open(text)
        if token.expires_at <= now():
            self._forget(text)
            raise Unauthorized("the token has expired")
        found = self._found.get(text)
        at = monotonic()
        if found is not None and at < found[0]:
            return found[1]
        principal = self.look_up(token)
        self._opened.move_to_end(text)
        self._found[text] = (at + FRESH_S, principal)
        return principal

    def look_up(self, token: Token) -> Principal:
        """Return the holder of an opened token, as the read model now has it.

        Raises:
            Unauthorized: the token does not count any more.
        """
        with self._reader.snapshot():
            return self._look_up(token)

    def _look_up(self, token: Token) -> Principal:
        reader = self._reader
        user = reader.user(token.user_id)
        if user is None or not user.enabled or token.issued_at < user.tokens_valid_from:
            raise Unauthorized("the token's user is gone, disabled or has ended its tokens")
        if reader.token_revoked(token.audit_id):
            raise Unauthorized("the token was revoked")
        if not token.project_id:
            return Principal(token, user, None, ())
        project = reader.project(token.project_id)
        if project is None or not project.enabled:
            raise Unauthorized("the token's project is gone or disabled")
        roles = effective(reader.role_names(user.user_id, project.project_id))
        if not roles:
            raise Unauthorized("the token's user has no role on its project any more")
        return Principal(token, user, project, roles)

    async def _open(self, text: str) -> Token:
        token = await self._ring.open(text) if text else None
        if token is None:
            raise Unauthorized(
                "the token is not valid" if text else "this call needs a token (X-Auth-Token)"
            )
        self._opened[text] = token
        while len(self._opened) > KEPT_MAX:
            self._forget(next(iter(self._opened)))
        return token

    def _forget(self, text: str) -> None:
        self._opened.pop(text, None)
        self._found.pop(text, None)


def effective(granted: tuple[str, ...]) -> tuple[str, ...]:
    """Return roles with those they imply, strongest first."""
    held = {implied for name in granted for implied in IMPLIED.get(name, ())}
    return tuple(name for name in IMPLIED if name in held)
