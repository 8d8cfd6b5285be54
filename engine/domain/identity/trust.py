"""Trusts: a user lets another act on a project, with some of its roles.

Invariant: a trust handed on gives no more than the one it came from: not more roles, not longer,
not to be handed on as often. Nor does one made with an application credential give more roles.
"""

from msgspec.structs import replace

from engine.domain.context import Context
from engine.domain.identity.access import StateDirectory, effective_roles
from engine.domain.identity.application_credential import need_unrestricted
from engine.domain.identity.directory import expanded
from engine.domain.identity.forget import forget_trust
from engine.domain.identity.found import Decision, identity_id
from engine.domain.state import Cell
from schemas import identity as s
from schemas.errors import Forbidden, InvalidInput, NotFound, UnknownReference
from schemas.units import Micros


def create_trust(cell: Cell, ctx: Context, action: s.CreateTrust) -> Decision:
    """Make one, with the caller as trustor; or hand on the one that the caller acts by."""
    above = _handed_on(cell, ctx, action)
    if above is None:
        need_unrestricted(cell, ctx, "making trusts")
    trustor_id = ctx.actor.user_id if above is None else above.trustor_user_id
    if action.trustee_user_id not in cell.state.users:
        raise UnknownReference(f"there is no user {action.trustee_user_id}")
    if action.expires_at is not None and action.expires_at <= ctx.now:
        raise InvalidInput("expires_at must be in the future")
    project_id = action.project_id or ""
    if bool(project_id) != bool(action.role_ids):
        raise InvalidInput("a trust names a project and roles on it, or neither")
    if project_id:
        held = effective_roles(cell, trustor_id, project_id)
        if ctx.actor.application_credential_id:
            held = ctx.roles if project_id == ctx.actor.project_id else frozenset()
        _need_roles(cell, held, action.role_ids)
    trust = s.Trust(
        trust_id=identity_id(ctx),
        trustor_user_id=trustor_id,
        trustee_user_id=action.trustee_user_id,
        impersonation=action.impersonation,
        project_id=project_id,
        role_ids=tuple(sorted(set(action.role_ids))),
        expires_at=_earlier(action.expires_at, None if above is None else above.expires_at),
        remaining_uses=action.remaining_uses,
        redelegation_count=action.redelegation_count,
        redelegated_trust_id="" if above is None else above.trust_id,
    )
    return [s.TrustCreated(trust=trust)], {"trust_id": trust.trust_id}


def _handed_on(cell: Cell, ctx: Context, action: s.CreateTrust) -> s.Trust | None:
    """Return the trust that the caller acts by, if it may be handed on like this."""
    if not ctx.actor.trust_id:
        return None
    trust = cell.state.trusts[ctx.actor.trust_id]
    if trust.redelegation_count < 1:
        raise Forbidden("this trust is not to be handed on")
    if action.redelegation_count >= trust.redelegation_count:
        raise Forbidden(f"it may be handed on {trust.redelegation_count - 1} more time(s)")
    if trust.remaining_uses is not None or action.remaining_uses is not None:
        raise Forbidden("a trust whose uses are counted is not handed on")
    if action.project_id != trust.project_id:
        raise Forbidden("it is for another project")
    directory = StateDirectory(cell.state)
    if not expanded(directory, action.role_ids) <= expanded(directory, trust.role_ids):
        raise Forbidden("it gives fewer roles")
    if action.impersonation and not trust.impersonation:
        raise Forbidden("it does not let anybody pass for the trustor")
    if (
        trust.expires_at is not None
        and action.expires_at is not None
        and action.expires_at > trust.expires_at
    ):
        raise Forbidden("it ends earlier")
    return trust


def _need_roles(cell: Cell, held: frozenset[str], role_ids: tuple[str, ...]) -> None:
    directory = StateDirectory(cell.state)
    for role_id in role_ids:
        if role_id not in cell.state.roles:
            raise NotFound(f"there is no role {role_id}")
        if not expanded(directory, (role_id,)) <= held:
            raise Forbidden("the trustor does not have these roles on the project")


def _earlier(one: Micros | None, other: Micros | None) -> Micros | None:
    given = [at for at in (one, other) if at is not None]
    return min(given) if given else None


def use_trust(cell: Cell, ctx: Context, action: s.UseTrust) -> Decision:
    """Count a use by the trustee; of a trust without a count nothing follows."""
    trust = cell.state.trusts.get(action.trust_id)
    if trust is None or trust.trustee_user_id != ctx.actor.user_id:
        raise NotFound(f"there is no trust {action.trust_id}")
    if trust.remaining_uses is None:
        return [], {}
    if trust.remaining_uses < 1:
        raise Forbidden("the trust has been used as often as it may")
    left = trust.remaining_uses - 1
    return [s.TrustUsed(trust_id=trust.trust_id, remaining_uses=left)], {"remaining_uses": left}


def delete_trust(cell: Cell, ctx: Context, action: s.DeleteTrust) -> Decision:
    """End a trust; by its trustor, or whoever may end anybody's."""
    trust = cell.state.trusts.get(action.trust_id)
    mine = trust is not None and ctx.actor.user_id in {trust.trustor_user_id, trust.trustee_user_id}
    if trust is None or not (mine or ctx.reach.any):
        raise NotFound(f"there is no trust {action.trust_id}")
    if not ctx.is_self(trust.trustor_user_id):
        raise Forbidden("a trust is ended by its trustor")
    if not ctx.reach.any:
        need_unrestricted(cell, ctx, "ending trusts")
    return [s.TrustDeleted(trust_id=trust.trust_id)], {}


# Evolve


def trust_created(cell: Cell, fact: s.TrustCreated, at: Micros) -> None:
    trust, index = fact.trust, cell.index
    ident = trust.trust_id
    cell.state.trusts[ident] = trust
    for user_id in {trust.trustor_user_id, trust.trustee_user_id}:
        index.user_trusts.setdefault(user_id, set()).add(ident)
    if trust.project_id:
        index.project_trusts.setdefault(trust.project_id, set()).add(ident)
    if trust.redelegated_trust_id:
        index.redelegated_trusts.setdefault(trust.redelegated_trust_id, set()).add(ident)


def trust_used(cell: Cell, fact: s.TrustUsed, at: Micros) -> None:
    trusts = cell.state.trusts
    trusts[fact.trust_id] = replace(trusts[fact.trust_id], remaining_uses=fact.remaining_uses)


def trust_deleted(cell: Cell, fact: s.TrustDeleted, at: Micros) -> None:
    forget_trust(cell, fact.trust_id)
