"""What an actor may claim: its user, its scope, and the roles it has there now."""

from collections.abc import Iterable

from engine.domain.identity.directory import expanded, roles_on
from engine.domain.state import Cell, State
from schemas.envelope import Actor
from schemas.errors import Unauthorized
from schemas.identity import SYSTEM, ApplicationCredential, Project, Role, Trust, User


class StateDirectory:
    """The engine's state, as roles are told from it."""

    def __init__(self, state: State) -> None:
        self._state = state

    def role(self, role_id: str) -> Role | None:
        """Return a role."""
        return self._state.roles.get(role_id)

    def project(self, project_id: str) -> Project | None:
        """Return a project."""
        return self._state.projects.get(project_id)

    def groups_of(self, user_id: str) -> Iterable[str]:
        """Return the ids of a user's groups, those that its identity provider says included.

        Time is that of the last commit: a provider's word may count a little longer here than
        for edges, which have a clock and ask first.
        """
        state = self._state
        own = state.memberships.get(user_id, ())
        federated = state.federated.get(user_id)
        if federated is None or federated.until <= state.at:
            return own
        provider = state.identity_providers.get(federated.idp_id)
        if provider is None or not provider.enabled:
            return own
        return (*own, *federated.group_ids)

    def granted(self, holder: str, target: str, *, inherited: bool) -> Iterable[str]:
        """Return the ids of roles that a user or group was given on a target."""
        state = self._state
        grants = state.inherited_grants if inherited else state.grants
        return grants.get(holder, {}).get(target, ())

    def implied(self, role_id: str) -> Iterable[str]:
        """Return the ids of roles that an operator has made another imply."""
        return self._state.implied_roles.get(role_id, ())


def effective_roles(cell: Cell, user_id: str, target: str) -> frozenset[str]:
    """Return the names of the roles a user has on a target, implied ones included."""
    return roles_on(StateDirectory(cell.state), user_id, target)


def actor_roles(cell: Cell, actor: Actor) -> frozenset[str]:
    """Return the roles a user's actor has in its scope now, whatever its request says.

    Raises:
        Unauthorized: the user or its scope is gone or disabled, or the token was ended.
    """
    state = cell.state
    user = _enabled_user(state, actor.user_id)
    if actor.issued_at < user.tokens_valid_from:
        raise Unauthorized("the token was issued before the password changed")
    if actor.audit_id in state.revoked_tokens:
        raise Unauthorized("the token was revoked")
    target = _scope(state, actor)
    directory = StateDirectory(state)
    if actor.trust_id:
        trust = _trust(state, actor)
        held = roles_on(directory, trust.trustor_user_id, target) if target else frozenset()
        return held & expanded(directory, trust.role_ids)
    held = roles_on(directory, actor.user_id, target) if target else frozenset()
    if actor.application_credential_id:
        credential = _application_credential(state, actor)
        return held & expanded(directory, credential.role_ids)
    return held


def _enabled_user(state: State, user_id: str) -> User:
    user = state.users.get(user_id)
    if user is None or not user.enabled:
        raise Unauthorized("the user is gone or disabled")
    _need_domain(state, user.domain_id, "the user's")
    return user


def _need_domain(state: State, domain_id: str, whose: str) -> None:
    domain = state.domains.get(domain_id)
    if domain is None or not domain.enabled:
        raise Unauthorized(f"{whose} domain is gone or disabled")


def _scope(state: State, actor: Actor) -> str:
    if actor.system:
        return SYSTEM
    if actor.project_id:
        project = state.projects.get(actor.project_id)
        if project is None or not project.enabled:
            raise Unauthorized("the project is gone or disabled")
        _need_domain(state, project.domain_id, "the project's")
        return actor.project_id
    if actor.domain_id:
        _need_domain(state, actor.domain_id, "the token's")
    return actor.domain_id


def _trust(state: State, actor: Actor) -> Trust:
    trust = state.trusts.get(actor.trust_id)
    if trust is None or actor.user_id not in {trust.trustor_user_id, trust.trustee_user_id}:
        raise Unauthorized("the trust is gone")
    if trust.project_id != actor.project_id:
        raise Unauthorized("the trust is for another project")
    _enabled_user(state, trust.trustor_user_id)
    _enabled_user(state, trust.trustee_user_id)
    return trust


def _application_credential(state: State, actor: Actor) -> ApplicationCredential:
    credential = state.application_credentials.get(actor.application_credential_id)
    if credential is None or credential.user_id != actor.user_id:
        raise Unauthorized("the application credential is gone")
    if credential.project_id != actor.project_id:
        raise Unauthorized("the application credential is for another project")
    return credential
