"""Keys of users: EC2 and S3 keys, TOTP secrets, and whatever else they keep here."""

from msgspec.structs import replace

from engine.domain.context import Context
from engine.domain.identity.application_credential import need_unrestricted
from engine.domain.identity.found import Decision, identity_id
from engine.domain.state import Cell, drop_member
from schemas import identity as s
from schemas.errors import Duplicate, Forbidden, InvalidInput, NotFound, UnknownReference
from schemas.units import Micros

EC2, TOTP = "ec2", "totp"


def create_credential(cell: Cell, ctx: Context, action: s.CreateCredential) -> Decision:
    """Make a key for the caller, or for anybody by whoever may."""
    need_unrestricted(cell, ctx, "making credentials")
    if action.kind == TOTP and ctx.actor.application_credential_id:
        raise Forbidden("a secret to sign in with is not made with an application credential")
    user = cell.state.users.get(action.user_id)
    if user is None or not ctx.is_self(action.user_id):
        raise UnknownReference(f"there is no user {action.user_id}")
    project_id = action.project_id or ""
    if action.kind == EC2 and not (project_id and action.access and action.credential_id):
        raise InvalidInput("an ec2 credential needs a project and an access key")
    _need_project(cell, ctx, action.user_id, project_id)
    ident = action.credential_id or identity_id(ctx)
    if ident in cell.state.credentials:
        raise Duplicate("a credential with this access key exists")
    credential = s.Credential(
        credential_id=ident,
        user_id=action.user_id,
        type=action.kind,
        blob=action.blob,
        project_id=project_id,
        access=action.access,
        application_credential_id=ctx.actor.application_credential_id,
    )
    return [s.CredentialCreated(credential=credential)], {"credential_id": ident}


def _need_project(cell: Cell, ctx: Context, user_id: str, project_id: str) -> None:
    """Let a key be for a project on which its user has a role, or any that its maker names."""
    if not project_id:
        return
    targets = cell.index.target_holders.get(project_id, set())
    groups = cell.state.memberships.get(user_id, ())
    own = project_id == ctx.actor.project_id or user_id in targets or targets & {*groups}
    if project_id not in cell.state.projects or not (own or ctx.reach.any):
        raise UnknownReference(f"there is no project {project_id}")


def update_credential(cell: Cell, ctx: Context, action: s.UpdateCredential) -> Decision:
    """Change what is given; an EC2 key keeps its access key, by which it is found."""
    credential = _find(cell, ctx, action.credential_id)
    need_unrestricted(cell, ctx, "changing credentials")
    program = ctx.actor.application_credential_id
    if program and credential.application_credential_id != program and not ctx.reach.any:
        raise Forbidden("an application credential changes those keys only that it has made")
    if action.access is not None and action.access != credential.access:
        raise Forbidden("a credential keeps its access key")
    if action.project_id is not None:
        _need_project(cell, ctx, credential.user_id, action.project_id)
    changed = replace(
        credential,
        blob=credential.blob if action.blob is None else action.blob,
        project_id=credential.project_id if action.project_id is None else action.project_id,
    )
    return [s.CredentialUpdated(credential=changed)], {"credential_id": credential.credential_id}


def delete_credential(cell: Cell, ctx: Context, action: s.DeleteCredential) -> Decision:
    """End a key."""
    credential = _find(cell, ctx, action.credential_id)
    need_unrestricted(cell, ctx, "ending credentials")
    return [s.CredentialDeleted(credential_id=credential.credential_id)], {}


def _find(cell: Cell, ctx: Context, ident: str) -> s.Credential:
    credential = cell.state.credentials.get(ident)
    if credential is None or not ctx.is_self(credential.user_id):
        raise NotFound(f"there is no credential {ident}")
    return credential


# Evolve


def credential_saved(
    cell: Cell, fact: s.CredentialCreated | s.CredentialUpdated, at: Micros
) -> None:
    credential, index = fact.credential, cell.index
    ident = credential.credential_id
    old = cell.state.credentials.get(ident)
    if old is not None and old.project_id:
        drop_member(index.project_credentials, old.project_id, ident)
    cell.state.credentials[ident] = credential
    index.user_credentials.setdefault(credential.user_id, set()).add(ident)
    if credential.project_id:
        index.project_credentials.setdefault(credential.project_id, set()).add(ident)


def credential_deleted(cell: Cell, fact: s.CredentialDeleted, at: Micros) -> None:
    credential, index = cell.state.credentials.pop(fact.credential_id), cell.index
    drop_member(index.user_credentials, credential.user_id, credential.credential_id)
    if credential.project_id:
        drop_member(index.project_credentials, credential.project_id, credential.credential_id)
