"""Who is asking: a token's holder, looked up in the read model.

Invariant: a token counts only while it has not expired or been revoked, its user is enabled and has
not ended its tokens, and its project is enabled and still gives the user a role. What was found is
kept until the read model shows that anything of identity has changed; writes are checked again by
the engine in its own state.
"""

from collections import OrderedDict
from collections.abc import Callable
from time import time_ns

from api.tokens import Token, TokenRing
from engine.domain.identity.directory import expanded, roles_on
from projections.reader import Reader
from schemas.envelope import Actor
from schemas.errors import Unauthorized
from schemas.identity import RANKED, SYSTEM, AccessRule, Domain, Project, User
from schemas.units import Micros

KEPT_MAX = 4096


def now() -> int:
    """Return this edge's clock in microseconds."""
    return time_ns() // 1000


class Principal:
    """A verified caller."""

    __slots__ = (
        "actor",
        "domain",
        "project",
        "project_id",
        "role_set",
        "roles",
        "rules",
        "scope",
        "token",
        "user",
        "user_id",
    )

    def __init__(
        self,
        token: Token,
        user: User,
        roles: tuple[str, ...],
        *,
        project: Project | None = None,
        domain: Domain | None = None,
        rules: tuple[AccessRule, ...] | None = None,
    ) -> None:
        """``project`` or ``domain`` is that of the token's scope.

        ``rules`` are the only calls that it is good for; None: it is good for all.
        """
        self.token = token
        self.user = user
        self.project = project
        self.domain = domain
        self.roles = roles
        self.rules = rules
        self.user_id = user.user_id
        self.project_id = token.project_id
        self.role_set = frozenset(roles)
        self.actor = Actor(
            kind="user",
            user_id=user.user_id,
            project_id=token.project_id,
            domain_id=token.domain_id,
            system=token.system,
            application_credential_id=token.application_credential_id,
            trust_id=token.trust_id,
            roles=roles,
            audit_id=token.audit_id,
            issued_at=token.issued_at,
        )
        self.scope = self.actor.scope


class Authenticator:
    """Turns tokens into principals."""

    def __init__(self, ring: TokenRing, reader: Reader, position: Callable[[], int]) -> None:
        """``position`` tells, at no cost, how far reads are: what was found holds while it does."""
        self._ring = ring
        self._reader = reader
        self._position = position
        self._seen_at = -1
        self._changed_at = -1
        self._ring_seq = ring.seq
        self._opened: OrderedDict[str, Token] = OrderedDict()
        self._found: dict[str, Principal] = {}

    def forget(self) -> None:
        """Look everybody up again: identity has changed."""
        self._found.clear()

    def _follow(self) -> None:
        """Forget what was found, if identity has changed since."""
        position = self._position()
        if position == self._seen_at:
            return
        changed_at = self._reader.identity_ordinal()
        if changed_at != self._changed_at:
            self._found.clear()
        self._seen_at, self._changed_at = position, changed_at

    async def principal(self, text: str, *, expired_for: Micros = 0) -> Principal:
        """Return the holder of a token; of one that expired, if that is no longer ago than given.

        Raises:
            Unauthorized: it is no token of ours, or does not count any more.
        """
        if self._ring.seq != self._ring_seq:
            # A key may have been dropped, and with it what it had sealed.
            self._ring_seq = self._ring.seq
            self._opened.clear()
            self._found.clear()
        token = self._opened.get(text)
        if token is None:
            token = await self._open(text)
        if token.expires_at <= now() - expired_for:
            self._forget(text)
            raise Unauthorized("the token has expired")
        self._follow()
        found = self._found.get(text)
        if found is None:
            found = self._found[text] = self.look_up(token)
            self._opened.move_to_end(text)
        return found

    def look_up(self, token: Token) -> Principal:
        """Return the holder of an opened token, as the read model now has it.

        Raises:
            Unauthorized: the token does not count any more.
        """
        with self._reader.snapshot():
            return self._look_up(token)

    def _look_up(self, token: Token) -> Principal:
        reader = self._reader
        user = self._enabled(token.user_id)
        if token.issued_at < user.tokens_valid_from:
            raise Unauthorized("the token's user has ended its tokens")
        if reader.token_revoked(token.audit_id):
            raise Unauthorized("the token was revoked")
        if token.idp_id:
            self._need_provider(token)
        project, domain = self._scope(token)
        target = SYSTEM if token.system else token.project_id or token.domain_id
        if token.trust_id:
            held = self._by_trust(token, target)
            rules = None
        elif token.application_credential_id:
            held, rules = self._by_application_credential(token, target)
        else:
            held = roles_on(reader, token.user_id, target) if target else frozenset()
            rules = None
        if target and not held:
            raise Unauthorized("the token's user has no role in its scope any more")
        return Principal(token, user, ordered(held), project=project, domain=domain, rules=rules)

    def _need_provider(self, token: Token) -> None:
        provider = self._reader.identity_provider(token.idp_id)
        protocol = self._reader.protocol(token.idp_id, token.protocol_id)
        if provider is None or not provider.enabled or protocol is None:
            raise Unauthorized("the token's identity provider is gone or disabled")

    def _enabled(self, user_id: str) -> User:
        user = self._reader.user(user_id)
        if user is None or not user.enabled:
            raise Unauthorized("the token's user is gone or disabled")
        self._enabled_domain(user.domain_id)
        return user

    def _enabled_domain(self, domain_id: str) -> Domain:
        domain = self._reader.domain(domain_id)
        if domain is None or not domain.enabled:
            raise Unauthorized("the domain of the token's user or scope is gone or disabled")
        return domain

    def _scope(self, token: Token) -> tuple[Project | None, Domain | None]:
        if token.project_id:
            project = self._reader.project(token.project_id)
            if project is None or not project.enabled:
                raise Unauthorized("the token's project is gone or disabled")
            self._enabled_domain(project.domain_id)
            return project, None
        return None, self._enabled_domain(token.domain_id) if token.domain_id else None

    def _by_trust(self, token: Token, target: str) -> frozenset[str]:
        """Return the roles that a trust gives, as far as its trustor still has them."""
        reader = self._reader
        trust = reader.trust(token.trust_id)
        if trust is None or trust.project_id != token.project_id:
            raise Unauthorized("the token's trust is gone")
        self._enabled(trust.trustor_user_id)
        self._enabled(trust.trustee_user_id)
        if not target:
            return frozenset()
        held = roles_on(reader, trust.trustor_user_id, target)
        return held & expanded(reader, trust.role_ids)

    def _by_application_credential(
        self, token: Token, target: str
    ) -> tuple[frozenset[str], tuple[AccessRule, ...] | None]:
        """Return the roles of an application credential that its user still has, and its rules."""
        reader = self._reader
        credential = reader.application_credential(token.application_credential_id)
        if credential is None or credential.project_id != token.project_id:
            raise Unauthorized("the token's application credential is gone")
        held = roles_on(reader, token.user_id, target) & expanded(reader, credential.role_ids)
        if credential.access_rule_ids is None:
            return held, None
        rules = reader.access_rules(token.user_id)
        wanted = frozenset(credential.access_rule_ids)
        return held, tuple(rule for rule in rules if rule.access_rule_id in wanted)

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


def ordered(names: frozenset[str]) -> tuple[str, ...]:
    """Return roles, the built-in ones first, strongest first."""
    ranked = [name for name in RANKED if name in names]
    return (*ranked, *sorted(names.difference(RANKED)))
