"""What goes with something that is deleted, without a fact of its own."""

from engine.domain.state import Cell, drop_member


def forget_target(cell: Cell, target: str) -> None:
    """Take away all roles on what is gone."""
    for holder in cell.index.target_holders.pop(target, ()):
        for grants in (cell.state.grants, cell.state.inherited_grants):
            held = grants.get(holder)
            if held is not None and held.pop(target, None) is not None and not held:
                del grants[holder]


def forget_holder(cell: Cell, holder: str) -> None:
    """Take away all roles of who is gone."""
    holders = cell.index.target_holders
    for grants in (cell.state.grants, cell.state.inherited_grants):
        for target in grants.pop(holder, {}):
            if holder in holders.get(target, ()):
                drop_member(holders, target, holder)


def forget_credentials_of_user(cell: Cell, user_id: str) -> None:
    """Take away all that stood for a user who is gone."""
    state, index = cell.state, cell.index
    for ident in index.user_application_credentials.pop(user_id, ()):
        forget_application_credential(cell, ident, of_user=False)
    for ident in index.user_credentials.pop(user_id, ()):
        credential = state.credentials.pop(ident)
        if credential.project_id:
            drop_member(index.project_credentials, credential.project_id, ident)
    for ident in sorted(index.user_trusts.get(user_id, ())):
        forget_trust(cell, ident)
    state.access_rules.pop(user_id, None)


def forget_credentials_of_project(cell: Cell, project_id: str) -> None:
    """Take away what stood for users on a project that is gone."""
    state, index = cell.state, cell.index
    for ident in sorted(index.project_application_credentials.get(project_id, ())):
        forget_application_credential(cell, ident)
    for ident in sorted(index.project_credentials.pop(project_id, ())):
        credential = state.credentials.pop(ident)
        drop_member(index.user_credentials, credential.user_id, ident)
    for ident in sorted(index.project_trusts.get(project_id, ())):
        forget_trust(cell, ident)


def forget_application_credential(cell: Cell, ident: str, *, of_user: bool = True) -> None:
    """Take away an application credential."""
    index = cell.index
    credential = cell.state.application_credentials.pop(ident)
    drop_member(index.project_application_credentials, credential.project_id, ident)
    if of_user:
        drop_member(index.user_application_credentials, credential.user_id, ident)


def forget_trust(cell: Cell, ident: str) -> None:
    """Take away a trust; nothing happens if it went with another already."""
    trust = cell.state.trusts.pop(ident, None)
    if trust is None:
        return
    index = cell.index
    for user_id in {trust.trustor_user_id, trust.trustee_user_id}:
        drop_member(index.user_trusts, user_id, ident)
    if trust.project_id:
        drop_member(index.project_trusts, trust.project_id, ident)
    if trust.redelegated_trust_id:
        drop_member(index.redelegated_trusts, trust.redelegated_trust_id, ident)
    for below in sorted(index.redelegated_trusts.get(ident, ())):
        forget_trust(cell, below)
