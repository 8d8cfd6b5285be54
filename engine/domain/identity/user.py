"""Users: who signs in, with which password, and until when their tokens are good."""

from msgspec.structs import replace

from engine.domain.context import Context
from engine.domain.identity.forget import forget_credentials_of_user, forget_holder
from engine.domain.identity.found import (
    Decision,
    find_user,
    identity_id,
    is_above_domains,
    merged_extra,
    need_domain,
)
from engine.domain.identity.password import parts
from engine.domain.state import Cell, drop_member
from schemas import identity as s
from schemas.errors import Duplicate, Forbidden, InvalidInput, UnknownReference
from schemas.units import DAY, Micros


def create_user(cell: Cell, ctx: Context, action: s.CreateUser) -> Decision:
    """Make a user."""
    need_domain(cell, ctx, action.domain_id)
    if (action.domain_id, action.name) in cell.index.user_names:
        raise Duplicate(f"a user named {action.name!r} exists in this domain")
    _need_project(cell, ctx, action.default_project_id)
    policy = cell.state.password_policy
    user = s.User(
        user_id=identity_id(ctx),
        name=action.name,
        domain_id=action.domain_id,
        password=action.password,
        default_project_id=action.default_project_id,
        email=action.email,
        description=action.description,
        enabled=action.enabled,
        password_changed_at=ctx.now if action.password is not None else 0,
        password_expires_at=None
        if action.password is None
        else _expires_at(policy, action.options, ctx.now, own=False),
        options=action.options,
        extra=merged_extra({}, action.extra),
    )
    return [s.UserCreated(user=user)], {"user_id": user.user_id}


def update_user(cell: Cell, ctx: Context, action: s.UpdateUser) -> Decision:
    """Change a user; a user may change little of itself, those who rule its domain everything."""
    user = find_user(cell, ctx, action.user_id)
    if not ctx.owns_domain(user.domain_id):
        _need_own(action)
    else:
        _need_not_above(cell, ctx, user)
    name = user.name if action.name is None else action.name
    holder = cell.index.user_names.get((user.domain_id, name))
    if holder not in (None, user.user_id):
        raise Duplicate(f"a user named {name!r} exists in this domain")
    _need_project(cell, ctx, action.default_project_id)
    given = {
        field: value
        for field in ("email", "description", "enabled", "default_project_id", "options")
        if (value := getattr(action, field)) is not None
    }
    changed = replace(user, name=name, extra=merged_extra(user.extra, action.extra), **given)
    if action.password is not None:
        changed = _with_password(cell, ctx, changed, user, action)
    if changed.enabled < user.enabled:
        changed = replace(changed, tokens_valid_from=ctx.now)
    return [s.UserUpdated(user=changed)], {"user_id": user.user_id}


def _with_password(
    cell: Cell, ctx: Context, user: s.User, before: s.User, action: s.UpdateUser
) -> s.User:
    policy = cell.state.password_policy
    if action.own:
        if before.options.lock_password:
            raise Forbidden("this user's password is changed by administrators only")
        earliest = before.password_changed_at + policy.age_min_days * DAY
        due = before.password_expires_at is not None and before.password_expires_at <= ctx.now
        if ctx.now < earliest and not due:
            raise InvalidInput(
                f"a password is kept for at least {policy.age_min_days} day(s)",
                days=policy.age_min_days,
            )
    earlier = user.password_history
    if before.password is not None:
        earlier = (before.password, *earlier)
    return replace(
        user,
        password=action.password,
        password_history=earlier[: max(0, policy.history - 1)],
        password_changed_at=ctx.now,
        password_expires_at=_expires_at(policy, user.options, ctx.now, own=action.own),
        tokens_valid_from=ctx.now,
    )


def _expires_at(
    policy: s.PasswordPolicy, options: s.UserOptions, now: Micros, *, own: bool
) -> Micros | None:
    """Return when a password ends: one that somebody else has set, at its first use."""
    first_use = policy.change_upon_first_use and not options.ignore_change_password_upon_first_use
    if first_use and not own:
        return now
    if policy.expires_days and not options.ignore_password_expiry:
        return now + policy.expires_days * DAY
    return None


def _need_own(action: s.UpdateUser) -> None:
    beyond = (action.name, action.enabled, action.default_project_id, action.options)
    if any(value is not None for value in beyond) or action.extra:
        raise Forbidden("of itself a user changes its password, e-mail and description only")


def _need_not_above(cell: Cell, ctx: Context, user: s.User) -> None:
    """Keep who rules one domain from becoming, by a new password, who rules or audits the cloud."""
    if not ctx.reach.any and is_above_domains(cell, user.user_id):
        raise Forbidden(
            "this user has roles in the whole cloud, and is changed by the cloud's administrators"
        )


def _need_project(cell: Cell, ctx: Context, project_id: str | None) -> None:
    if project_id is None:
        return
    project = cell.state.projects.get(project_id)
    if project is None or not ctx.owns_domain(project.domain_id):
        raise UnknownReference(f"there is no project {project_id}")


def delete_user(cell: Cell, ctx: Context, action: s.DeleteUser) -> Decision:
    """Remove a user with all that is only its own."""
    user = find_user(cell, ctx, action.user_id)
    if user.user_id == ctx.actor.user_id:
        raise Forbidden("a user cannot delete itself")
    _need_not_above(cell, ctx, user)
    return [s.UserDeleted(user_id=user.user_id)], {}


def revoke_token(cell: Cell, ctx: Context, action: s.RevokeToken) -> Decision:
    """End a token; the edge has checked that the caller holds it, or is an administrator."""
    if action.audit_id in cell.state.revoked_tokens:
        return [], {}
    return [s.TokenRevoked(audit_id=action.audit_id, expires_at=action.expires_at)], {}


def set_password_policy(cell: Cell, ctx: Context, action: s.SetPasswordPolicy) -> Decision:
    """Say what passwords must be. Those that there are stay as they are."""
    policy = action.policy
    parts(policy.pattern)
    if bool(policy.lockout_attempts) != bool(policy.lockout_s):
        raise InvalidInput("lockout_attempts and lockout_s are given together, or both are 0")
    if action.policy == cell.state.password_policy:
        return [], {}
    return [s.PasswordPolicySet(policy=action.policy)], {}


# Evolve


def user_saved(cell: Cell, fact: s.UserCreated | s.UserUpdated, at: Micros) -> None:
    user, index = fact.user, cell.index
    old = cell.state.users.get(user.user_id)
    if old is not None:
        del index.user_names[old.domain_id, old.name]
    cell.state.users[user.user_id] = user
    index.user_names[user.domain_id, user.name] = user.user_id
    index.domain_users.setdefault(user.domain_id, set()).add(user.user_id)


def user_deleted(cell: Cell, fact: s.UserDeleted, at: Micros) -> None:
    state, index = cell.state, cell.index
    user = state.users.pop(fact.user_id)
    del index.user_names[user.domain_id, user.name]
    drop_member(index.domain_users, user.domain_id, user.user_id)
    for group_id in state.memberships.pop(user.user_id, ()):
        drop_member(index.group_members, group_id, user.user_id)
    forget_holder(cell, user.user_id)
    forget_credentials_of_user(cell, user.user_id)
    state.keypairs.pop(user.user_id, None)
    state.federated.pop(user.user_id, None)


def token_revoked(cell: Cell, fact: s.TokenRevoked, at: Micros) -> None:
    revoked = cell.state.revoked_tokens
    for audit_id in [a for a, expires_at in revoked.items() if expires_at < at]:
        del revoked[audit_id]
    revoked[fact.audit_id] = fact.expires_at


def password_policy_set(cell: Cell, fact: s.PasswordPolicySet, at: Micros) -> None:
    cell.state.password_policy = fact.policy
