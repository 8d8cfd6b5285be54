"""What a token is to be for: a project, a domain, the system, a trust, or nothing.

Invariant: a scope is given only to whoever has a role there; all others are told what those are
told who sign in with a wrong password.
"""

from typing import Literal

import msgspec
from msgspec import Struct

from api.auth import now
from api.exchange import Call
from api.identity.factors import WRONG, Proof
from api.identity.signing_in import DomainRef, find_domain_id
from engine.domain.identity.directory import roles_on
from schemas.errors import InvalidInput, Unauthorized
from schemas.identity import SYSTEM, Domain, Project, Trust
from schemas.units import Text


class _ProjectRef(Struct, frozen=True, forbid_unknown_fields=True):
    id: Text | None = None
    name: Text | None = None
    domain: DomainRef | None = None


class _TrustRef(Struct, frozen=True, forbid_unknown_fields=True):
    id: Text


class _System(Struct, frozen=True, forbid_unknown_fields=True):
    all: bool


class _Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class ScopeWish(Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked for; one of these."""

    project: _ProjectRef | None = None
    domain: DomainRef | None = None
    system: _System | None = None
    unscoped: _Nothing | None = None
    trust: _TrustRef | None = msgspec.field(default=None, name="OS-TRUST:trust")


type Wish = ScopeWish | Literal["unscoped"] | None


class Scope(Struct, frozen=True, kw_only=True):
    """What a token is for. Of a trust, ``project`` is the trust's."""

    project: Project | None = None
    domain: Domain | None = None
    system: bool = False
    trust: Trust | None = None


NOTHING = Scope()


def scope_of(call: Call, proof: Proof, wish: Wish) -> Scope:
    """Return what a token is to be for.

    Without a wish that is the user's default project, if it may have it, else nothing. An
    application credential is for its own project, whatever is asked.

    Raises:
        Unauthorized: there is no such scope, or the user has no role in it.
        InvalidInput: it is not told in one way.
    """
    if proof.application_credential is not None:
        return _of_application_credential(call, proof, wish)
    if wish is None:
        return _default(call, proof)
    if isinstance(wish, str):
        return NOTHING
    given = (wish.project, wish.domain, wish.system, wish.unscoped, wish.trust)
    if sum(one is not None for one in given) != 1:
        raise InvalidInput("scope is one of project, domain, system, unscoped, OS-TRUST:trust")
    if wish.trust is not None:
        return _of_trust(call, proof, wish.trust.id)
    if wish.unscoped is not None:
        return NOTHING
    user_id = proof.user.user_id
    if wish.project is not None:
        project = _project(call, wish.project)
        if project is not None and _may(call, user_id, project):
            return Scope(project=project)
    elif wish.domain is not None:
        domain = call.edge.reader.domain(find_domain_id(call, wish.domain) or "")
        if domain is not None and domain.enabled and has_role(call, user_id, domain.domain_id):
            return Scope(domain=domain)
    elif wish.system is not None and wish.system.all and has_role(call, user_id, SYSTEM):
        return Scope(system=True)
    raise Unauthorized(WRONG)


def has_role(call: Call, user_id: str, target: str) -> bool:
    """Say whether a user has a role on a project or domain, or in ``system``."""
    return bool(roles_on(call.edge.reader, user_id, target))


def _may(call: Call, user_id: str, project: Project) -> bool:
    return project.enabled and has_role(call, user_id, project.project_id)


def _default(call: Call, proof: Proof) -> Scope:
    ident = proof.user.default_project_id
    project = call.edge.reader.project(ident) if ident else None
    if project is None or not _may(call, proof.user.user_id, project):
        return NOTHING
    return Scope(project=project)


def _project(call: Call, ref: _ProjectRef) -> Project | None:
    reader = call.edge.reader
    if ref.id is not None:
        return reader.project(ref.id)
    if ref.name is None or ref.domain is None:
        raise InvalidInput("a project is given by id, or by name and domain")
    domain_id = find_domain_id(call, ref.domain)
    found = reader.projects(domain_id=domain_id, name=ref.name) if domain_id else []
    return found[0] if found else None


def _of_application_credential(call: Call, proof: Proof, wish: Wish) -> Scope:
    credential = proof.application_credential
    assert credential is not None, "the caller has looked"
    project = call.edge.reader.project(credential.project_id)
    if project is None or not project.enabled:
        raise Unauthorized(WRONG)
    if wish is not None:
        asked = None
        if isinstance(wish, ScopeWish) and wish.project is not None:
            asked = _project(call, wish.project)
        if asked is None or asked.project_id != project.project_id:
            raise Unauthorized(WRONG)
    return Scope(project=project)


def _of_trust(call: Call, proof: Proof, trust_id: str) -> Scope:
    """Return the scope of a trust whose trustee has signed in."""
    trust = call.edge.reader.trust(trust_id)
    if trust is None or trust.trustee_user_id != proof.user.user_id:
        raise Unauthorized(WRONG)
    if trust.remaining_uses == 0:
        raise Unauthorized(WRONG)
    if trust.expires_at is not None and trust.expires_at <= now():
        raise Unauthorized(WRONG)
    if not trust.project_id:
        return Scope(trust=trust)
    project = call.edge.reader.project(trust.project_id)
    if project is None or not project.enabled:
        raise Unauthorized(WRONG)
    return Scope(project=project, trust=trust)
