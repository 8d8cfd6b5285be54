"""Application credentials: a program acts for its user on one project, with some of its roles."""

from engine.domain.context import Context
from engine.domain.identity.access import StateDirectory
from engine.domain.identity.directory import expanded
from engine.domain.identity.forget import forget_application_credential
from engine.domain.identity.found import Decision, identity_id
from engine.domain.state import Cell
from schemas import identity as s
from schemas.envelope import Fact
from schemas.errors import Duplicate, Forbidden, InvalidInput, NotFound, UnknownReference
from schemas.units import Micros


def need_unrestricted(cell: Cell, ctx: Context, what: str) -> None:
    """Keep a program that got some rights from making more of them.

    Raises:
        Forbidden: the token is of a restricted application credential, or of a trust.
    """
    if ctx.actor.trust_id:
        raise Forbidden(f"a token of a trust is not good for {what}")
    ident = ctx.actor.application_credential_id
    credential = cell.state.application_credentials.get(ident)
    if ident and (credential is None or not credential.unrestricted):
        raise Forbidden(f"a restricted application credential is not good for {what}")


def create_application_credential(
    cell: Cell, ctx: Context, action: s.CreateApplicationCredential
) -> Decision:
    """Make one for the caller on its project, with roles it has there."""
    need_unrestricted(cell, ctx, "making application credentials")
    actor = ctx.actor
    if not actor.project_id:
        raise Forbidden("an application credential is made with a token of its project")
    if _named(cell, actor.user_id, action.name):
        raise Duplicate(f"an application credential named {action.name!r} exists")
    if action.expires_at is not None and action.expires_at <= ctx.now:
        raise InvalidInput("expires_at must be in the future")
    role_ids = _roles(cell, ctx, action.role_ids)
    facts, rule_ids = _rules(cell, ctx, action.access_rules)
    credential = s.ApplicationCredential(
        application_credential_id=identity_id(ctx),
        name=action.name,
        user_id=actor.user_id,
        project_id=actor.project_id,
        secret=action.secret,
        role_ids=role_ids,
        description=action.description,
        expires_at=action.expires_at,
        unrestricted=action.unrestricted,
        access_rule_ids=rule_ids,
    )
    made = s.ApplicationCredentialCreated(application_credential=credential)
    return [*facts, made], {
        "application_credential_id": credential.application_credential_id,
    }


def _named(cell: Cell, user_id: str, name: str) -> bool:
    held = cell.index.user_application_credentials.get(user_id, ())
    return any(cell.state.application_credentials[ident].name == name for ident in held)


def _roles(cell: Cell, ctx: Context, asked: tuple[str, ...]) -> tuple[str, ...]:
    state, names = cell.state, cell.index.role_names
    if not asked:
        return tuple(sorted(names["", name] for name in ctx.roles if ("", name) in names))
    directory = StateDirectory(state)
    for role_id in asked:
        if role_id not in state.roles or not expanded(directory, (role_id,)) <= ctx.roles:
            raise InvalidInput(f"the caller does not have the role {role_id} on the project")
    return tuple(sorted(set(asked)))


def _rules(
    cell: Cell, ctx: Context, asked: tuple[s.NewAccessRule, ...] | None
) -> tuple[list[Fact], tuple[str, ...] | None]:
    """Return the rules to be made, and the ids of all that were asked for; None: every call."""
    if asked is None:
        return [], None
    user_id = ctx.actor.user_id
    held = cell.state.access_rules.get(user_id, {})
    known = {(r.service, r.method, r.path): r.access_rule_id for r in held.values()}
    facts: list[Fact] = []
    ids: list[str] = []
    for rule in asked:
        if rule.access_rule_id is not None:
            if rule.access_rule_id not in held:
                raise UnknownReference(f"there is no access rule {rule.access_rule_id}")
            ids.append(rule.access_rule_id)
            continue
        if rule.service is None or rule.method is None or rule.path is None:
            raise InvalidInput("an access rule has a service, a method and a path, or an id")
        key = (rule.service, rule.method, rule.path)
        if key not in known:
            known[key] = identity_id(ctx)
            new = s.AccessRule(
                access_rule_id=known[key], service=rule.service, method=rule.method, path=rule.path
            )
            facts.append(s.AccessRuleCreated(user_id=user_id, access_rule=new))
        ids.append(known[key])
    return facts, tuple(dict.fromkeys(ids))


def delete_application_credential(
    cell: Cell, ctx: Context, action: s.DeleteApplicationCredential
) -> Decision:
    """End one; its tokens end with it."""
    ident = action.application_credential_id
    credential = cell.state.application_credentials.get(ident)
    if credential is None or not ctx.is_self(credential.user_id):
        raise NotFound(f"there is no application credential {ident}")
    if not ctx.reach.any:
        need_unrestricted(cell, ctx, "ending application credentials")
    return [s.ApplicationCredentialDeleted(application_credential_id=ident)], {}


def delete_access_rule(cell: Cell, ctx: Context, action: s.DeleteAccessRule) -> Decision:
    """Remove an access rule of the caller's that nothing uses."""
    user_id, ident = ctx.actor.user_id, action.access_rule_id
    if ident not in cell.state.access_rules.get(user_id, {}):
        raise NotFound(f"there is no access rule {ident}")
    for held in cell.index.user_application_credentials.get(user_id, ()):
        if ident in (cell.state.application_credentials[held].access_rule_ids or ()):
            raise Forbidden("an application credential uses the rule")
    return [s.AccessRuleDeleted(user_id=user_id, access_rule_id=ident)], {}


# Evolve


def access_rule_created(cell: Cell, fact: s.AccessRuleCreated, at: Micros) -> None:
    rules = cell.state.access_rules.setdefault(fact.user_id, {})
    rules[fact.access_rule.access_rule_id] = fact.access_rule


def access_rule_deleted(cell: Cell, fact: s.AccessRuleDeleted, at: Micros) -> None:
    rules = cell.state.access_rules[fact.user_id]
    del rules[fact.access_rule_id]
    if not rules:
        del cell.state.access_rules[fact.user_id]


def application_credential_created(
    cell: Cell, fact: s.ApplicationCredentialCreated, at: Micros
) -> None:
    credential, index = fact.application_credential, cell.index
    ident = credential.application_credential_id
    cell.state.application_credentials[ident] = credential
    index.user_application_credentials.setdefault(credential.user_id, set()).add(ident)
    index.project_application_credentials.setdefault(credential.project_id, set()).add(ident)


def application_credential_deleted(
    cell: Cell, fact: s.ApplicationCredentialDeleted, at: Micros
) -> None:
    forget_application_credential(cell, fact.application_credential_id)
