"""What a token says of itself to clients: the same at its creation and at every validation."""

from typing import Any

from api.auth import Principal
from api.catalog import catalog_for
from api.sealing_inbound import password_ends_at
from api.times import micros_z
from projections.reader import Reader
from schemas.identity import ApplicationCredential, User


def token_view(
    principal: Principal, reader: Reader, base: str, *, with_catalog: bool = True
) -> dict[str, Any]:
    """A token's body."""
    token, user = principal.token, principal.user
    expires_at = password_ends_at(user)
    view: dict[str, Any] = {
        "methods": list(token.methods),
        "user": {
            "id": user.user_id,
            "name": user.name,
            "domain": _domain_ref(reader, user.domain_id),
            "password_expires_at": None if expires_at is None else micros_z(expires_at),
        },
        "audit_ids": [one for one in (token.audit_id, token.parent_audit_id) if one],
        "expires_at": micros_z(token.expires_at),
        "issued_at": micros_z(token.issued_at),
    }
    if token.idp_id:
        told = reader.federated(user.user_id)
        view["user"]["OS-FEDERATION"] = {
            "identity_provider": {"id": token.idp_id},
            "protocol": {"id": token.protocol_id},
            "groups": [{"id": ident} for ident in (() if told is None else told.group_ids)],
        }
    scope = _scope(principal, reader)
    if scope:
        view |= scope
        ids = {role.name: role.role_id for role in reader.roles() if not role.domain_id}
        view["roles"] = [{"id": ids[n], "name": n} for n in principal.roles if n in ids]
        if with_catalog:
            view["catalog"] = catalog_for(principal, reader, base)
    if token.trust_id:
        view["OS-TRUST:trust"] = _trust(reader, token.trust_id)
    if token.application_credential_id:
        credential = reader.application_credential(token.application_credential_id)
        if credential is not None:
            view["application_credential"] = _application_credential(reader, user, credential)
    return {"token": view}


def _scope(principal: Principal, reader: Reader) -> dict[str, Any]:
    if principal.token.system:
        return {"system": {"all": True}}
    if principal.domain is not None:
        return {"domain": {"id": principal.domain.domain_id, "name": principal.domain.name}}
    project = principal.project
    if project is None:
        return {}
    ref = {
        "id": project.project_id,
        "name": project.name,
        "domain": _domain_ref(reader, project.domain_id),
    }
    return {"project": ref, "is_domain": False}


def _trust(reader: Reader, trust_id: str) -> dict[str, Any]:
    trust = reader.trust(trust_id)
    if trust is None:
        return {"id": trust_id}
    return {
        "id": trust_id,
        "impersonation": trust.impersonation,
        "trustor_user": {"id": trust.trustor_user_id},
        "trustee_user": {"id": trust.trustee_user_id},
    }


def _application_credential(
    reader: Reader, user: User, credential: ApplicationCredential
) -> dict[str, Any]:
    view: dict[str, Any] = {
        "id": credential.application_credential_id,
        "name": credential.name,
        "restricted": not credential.unrestricted,
    }
    if credential.access_rule_ids is not None:
        rules = {rule.access_rule_id: rule for rule in reader.access_rules(user.user_id)}
        view["access_rules"] = [
            {"id": rule.access_rule_id, "service": rule.service, "method": rule.method}
            | {"path": rule.path}
            for ident in credential.access_rule_ids
            if (rule := rules.get(ident)) is not None
        ]
    return view


def _domain_ref(reader: Reader, domain_id: str) -> dict[str, str]:
    domain = reader.domain(domain_id)
    return {"id": domain_id, "name": domain.name if domain else domain_id}
