"""How somebody proves who they are: by password, one-time code, token, application credential.

Invariant: whoever fails is told only that (401), and it takes as long whether or not the user or
credential exists, or is locked out. A token that stands for its user by delegation proves nothing
here. A user with several factors gets a token only for all that one of its rules names.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

import structlog
from msgspec import Meta, Struct

from api.auth import now
from api.exchange import Call
from api.identity.factors import RECEIPT_HEADER, WRONG, Proof, need_factors, opened
from api.identity.totp import is_code_of
from api.lockouts import PASSWORD, TOTP
from api.sealing_inbound import password_ends_at, password_hash, secret_hash
from schemas.errors import Forbidden, InvalidInput, Unauthorized
from schemas.identity import ApplicationCredential, PasswordPolicy, User
from schemas.units import LongText, Text

# For one-time codes, where an operator has set no rule: RFC 6238, 5.2 asks for one.
OF_CODES = PasswordPolicy(lockout_attempts=10, lockout_s=300)

log = structlog.get_logger(__name__)


TokenText = Annotated[str, Meta(max_length=8192)]


class DomainRef(Struct, frozen=True, forbid_unknown_fields=True):
    """A domain, by id or by name."""

    id: Text | None = None
    name: Text | None = None


class UserRef(Struct, frozen=True, forbid_unknown_fields=True):
    """A user, by id or by name and domain."""

    id: Text | None = None
    name: Text | None = None
    domain: DomainRef | None = None


class _PasswordUser(Struct, frozen=True, forbid_unknown_fields=True):
    password: LongText
    id: Text | None = None
    name: Text | None = None
    domain: DomainRef | None = None


class _Password(Struct, frozen=True, forbid_unknown_fields=True):
    user: _PasswordUser


class _TotpUser(Struct, frozen=True, forbid_unknown_fields=True):
    passcode: Text
    id: Text | None = None
    name: Text | None = None
    domain: DomainRef | None = None


class _Totp(Struct, frozen=True, forbid_unknown_fields=True):
    user: _TotpUser


class _Token(Struct, frozen=True, forbid_unknown_fields=True):
    id: TokenText


class _ApplicationCredential(Struct, frozen=True, forbid_unknown_fields=True):
    secret: LongText
    id: Text | None = None
    name: Text | None = None
    user: UserRef | None = None


class Identity(Struct, frozen=True, forbid_unknown_fields=True):
    """What is sent to sign in: the methods, and the data of each beside them."""

    methods: Annotated[tuple[Text, ...], Meta(max_length=8)]
    password: _Password | None = None
    token: _Token | None = None
    application_credential: _ApplicationCredential | None = None
    totp: _Totp | None = None


async def identify(call: Call, identity: Identity) -> Proof:
    """Return who signs in; each method that is named must prove the same user.

    A receipt that comes with them counts for the methods that it was given for.

    Raises:
        Unauthorized: one does not.
        FactorsMissing: all do, and the user has to prove more.
        Forbidden: it is a token of a delegation.
        InvalidInput: no method is named, or one without its data.
    """
    methods = tuple(dict.fromkeys(identity.methods))
    if not methods:
        raise InvalidInput("identity.methods must name a method, with its data beside it")
    if unknown := [method for method in methods if method not in METHODS]:
        raise Unauthorized(
            f"the method {unknown[0][:50]!r} is not among {', '.join(METHODS)}, which are offered"
        )
    proofs: list[Proof] = []
    for method in methods:
        data = getattr(identity, method)
        if data is None:
            raise InvalidInput(f"identity.{method} must be given, since identity.methods names it")
        proofs.append(await METHODS[method](call, data))
    if receipt := call.header(RECEIPT_HEADER):
        proofs.append(await opened(call, receipt))
    if len({proof.user.user_id for proof in proofs}) != 1:
        raise Unauthorized(WRONG)
    proof = _joined(proofs)
    need_factors(call, proof)
    return proof


def _joined(proofs: list[Proof]) -> Proof:
    """Return what several proofs of the same user are together: the strictest of each."""
    if len(proofs) == 1:
        return proofs[0]
    ends = [proof.expires_at for proof in proofs if proof.expires_at is not None]
    return Proof(
        user=proofs[0].user,
        methods=tuple(dict.fromkeys(name for proof in proofs for name in proof.methods)),
        expires_at=min(ends) if ends else None,
        parent_audit_id=next((p.parent_audit_id for p in proofs if p.parent_audit_id), ""),
        application_credential=next(
            (p.application_credential for p in proofs if p.application_credential), None
        ),
        idp_id=next((p.idp_id for p in proofs if p.idp_id), ""),
        protocol_id=next((p.protocol_id for p in proofs if p.protocol_id), ""),
    )


async def _by_password(call: Call, data: _Password) -> Proof:
    user = await proven_by_password(call, find_user(call, data.user), data.user.password)
    ends_at = password_ends_at(user)
    if ends_at is not None and ends_at <= now():
        call.reason = "the password has expired"
        raise Unauthorized(
            "the password has expired and must be changed: POST "
            f"/identity/v3/users/{user.user_id}/password with the original and a new one"
        )
    return Proof(user=user, methods=("password",))


async def proven_by_password(call: Call, user: User | None, password: str) -> User:
    """Return the user if the password is right, expired or not.

    Raises:
        Unauthorized: it is not, or the user is locked out, or there is none.
    """
    edge = call.edge
    encoded = None if user is None else await password_hash(edge, user)
    right = await edge.passwords.verify(encoded, password)
    return _judged(call, user, edge.reader.password_policy(), PASSWORD, right=right)


def _judged(
    call: Call, user: User | None, policy: PasswordPolicy, method: str, *, right: bool
) -> User:
    """Return the user if what it gave as proof was right, keeping count of what was not.

    Raises:
        Unauthorized: it was not, or the user is locked out, or there is none.
    """
    lockouts = call.edge.lockouts
    if user is None:
        raise Unauthorized(WRONG)
    if lockouts.holds(policy, user, method):
        lockouts.refused += 1
        call.reason = "the user is locked out"
        raise Unauthorized(WRONG)
    if right:
        lockouts.succeeded(user, method)
        return user
    if lockouts.failed(policy, user, method):
        log.warning("user_locked_out", user_id=user.user_id, seconds=policy.lockout_s)
        call.reason = "a wrong password or code: the user is locked out"
    raise Unauthorized(WRONG)


async def _by_totp(call: Call, data: _Totp) -> Proof:
    user = find_user(call, data.user)
    right = user is not None and await is_code_of(call.edge, user, data.user.passcode, now())
    policy = call.edge.reader.password_policy()
    if not policy.lockout_attempts:
        policy = OF_CODES  # of a million codes, three are right
    return Proof(user=_judged(call, user, policy, TOTP, right=right), methods=(TOTP,))


async def _by_token(call: Call, data: _Token) -> Proof:
    try:
        held = await call.edge.authenticator.principal(data.id)
    except Unauthorized as error:
        raise Unauthorized(WRONG) from error
    token = held.token
    if token.trust_id or token.application_credential_id:
        raise Forbidden("a token of a trust or of an application credential gives no other token")
    return Proof(
        user=held.user,
        methods=tuple(dict.fromkeys((*token.methods, "token"))),
        expires_at=token.expires_at,
        parent_audit_id=token.audit_id,
        idp_id=token.idp_id,
        protocol_id=token.protocol_id,
    )


async def _by_application_credential(call: Call, data: _ApplicationCredential) -> Proof:
    edge = call.edge
    credential = _find_application_credential(call, data)
    user = None if credential is None else edge.reader.user(credential.user_id)
    encoded = None
    if credential is not None and user is not None and user.enabled:
        encoded = await secret_hash(edge, credential.secret)
    right = await edge.passwords.verify(encoded, data.secret)
    if not right or credential is None or user is None:
        raise Unauthorized(WRONG)
    if credential.expires_at is not None and credential.expires_at <= now():
        raise Unauthorized(WRONG)
    return Proof(
        user=user,
        methods=("application_credential",),
        expires_at=credential.expires_at,
        application_credential=credential,
    )


METHODS: Mapping[str, Callable[[Call, Any], Awaitable[Proof]]] = {
    "password": _by_password,
    "token": _by_token,
    "application_credential": _by_application_credential,
    "totp": _by_totp,
}


def _find_application_credential(
    call: Call, data: _ApplicationCredential
) -> ApplicationCredential | None:
    reader = call.edge.reader
    if data.id is not None:
        return reader.application_credential(data.id)
    if data.name is None or data.user is None:
        raise InvalidInput("an application credential is given by id, or by name and user")
    user = find_user(call, data.user)
    if user is None:
        return None
    found = reader.application_credentials(user_id=user.user_id, name=data.name)
    return found[0] if found else None


def find_user(call: Call, ref: UserRef | _PasswordUser | _TotpUser) -> User | None:
    """Return a user that is meant by id, or by name and domain; None if there is none.

    Raises:
        InvalidInput: neither is given.
    """
    reader = call.edge.reader
    if ref.id is not None:
        return reader.user(ref.id)
    if ref.name is None:
        raise InvalidInput("a user is given by id, or by name and domain")
    if ref.domain is None:
        raise InvalidInput("a user given by name needs its domain")
    domain_id = find_domain_id(call, ref.domain)
    users = reader.users(domain_id=domain_id, name=ref.name) if domain_id else []
    return users[0] if users else None


def find_domain_id(call: Call, ref: DomainRef) -> str | None:
    """Return the id of a domain that is meant; None if no domain has the name.

    Raises:
        InvalidInput: neither id nor name is given.
    """
    if ref.id is not None:
        return ref.id
    if ref.name is None:
        raise InvalidInput("a domain is given by id or by name")
    domains = call.edge.reader.domains(name=ref.name)
    return domains[0].domain_id if domains else None
