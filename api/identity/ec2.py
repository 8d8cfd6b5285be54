"""Tokens for signatures: what services that speak Amazon's APIs ask, with a user's EC2 key.

A service sends what a client has signed, and gets a token of the key's user on the key's project.
Invariants: only services and administrators ask, since a signature that was overheard would else
be as good as a token (OSSA-2025-002); of a wrong signature nobody learns whether the key is there.
"""

from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from api.exchange import Answer, Call, json_answer
from api.identity.credentials import EC2, Ec2Blob, ec2_id
from api.identity.factors import WRONG, Proof, need_factors
from api.identity.scope import Scope
from api.identity.token_views import token_view
from api.identity.tokens import made
from api.routing import Routes
from api.sealing_inbound import open_text
from api.signatures import SignedRequest, is_signed, is_signed_for_s3, string_to_sign
from schemas.errors import InvalidInput, Unauthorized
from schemas.identity import Credential
from schemas.units import LongText, Text

USE = "identity:signatures:check"
METHOD = "ec2credential"
NO_SECRET = "no secret is as long as this one, or is it not"  # noqa: S105  # nobody's


class _Ec2Body(Struct, frozen=True, forbid_unknown_fields=True):
    credentials: SignedRequest | None = None
    ec2_credentials: SignedRequest | None = msgspec.field(default=None, name="ec2Credentials")


class _S3(Struct, frozen=True, forbid_unknown_fields=True):
    access: Text
    signature: Text
    token: LongText  # what was signed, as base64


class _S3Body(Struct, frozen=True, forbid_unknown_fields=True):
    credentials: _S3


_ec2 = msgspec.json.Decoder(_Ec2Body)
_s3 = msgspec.json.Decoder(_S3Body)
_decode_blob = msgspec.json.Decoder(Ec2Blob).decode


async def ec2_token(call: Call) -> Answer:
    """POST /ec2tokens: for a request signed with an EC2 key."""
    body = await call.decode(_ec2)
    request = body.credentials or body.ec2_credentials
    if request is None:
        raise InvalidInput("credentials are missing")
    credential, secret = await _key(call, request.access)
    right = is_signed(request, secret, datetime.now(UTC))
    return _answer(call, credential, right=right, with_token=True)


async def s3_token(call: Call) -> Answer:
    """POST /s3tokens: for a string to sign that was signed with an EC2 key. Without a token."""
    wish = (await call.decode(_s3)).credentials
    try:
        text = string_to_sign(wish.token)
    except ValueError as error:
        raise InvalidInput(f"token cannot be read: {error}") from error
    credential, secret = await _key(call, wish.access)
    right = is_signed_for_s3(text, wish.signature, secret)
    return _answer(call, credential, right=right, with_token=False)


async def _key(call: Call, access: str) -> tuple[Credential | None, str]:
    """Return an EC2 key and its secret, or None and a secret with which nobody signs."""
    credential = call.edge.reader.credential(ec2_id(access))
    if credential is None or credential.type != EC2 or credential.access != access:
        return None, NO_SECRET
    blob = await open_text(call.edge, credential.blob)
    if blob is None:
        return None, NO_SECRET
    return credential, _decode_blob(blob).secret


def _answer(call: Call, credential: Credential | None, *, right: bool, with_token: bool) -> Answer:
    """Answer with a token of the key's user on its project; the caller stays who has asked.

    Raises:
        Unauthorized: the signature is not right, or the key's user may not have such a token.
    """
    reader = call.edge.reader
    user = None if credential is None else reader.user(credential.user_id)
    project = None if credential is None else reader.project(credential.project_id)
    if not right or credential is None or user is None or project is None:
        raise Unauthorized(WRONG)
    application = None
    if credential.application_credential_id:
        application = reader.application_credential(credential.application_credential_id)
        if application is None:
            raise Unauthorized(WRONG)
    proof = Proof(
        user=user,
        methods=(METHOD,),
        expires_at=None if application is None else application.expires_at,
        application_credential=application,
    )
    need_factors(call, proof)
    asker = call.principal
    try:
        token = made(call, proof, Scope(project=project))
        view = token_view(call.principal, reader, call.base)
    finally:
        call.principal = asker
    if not with_token:
        return json_answer(view)
    text = call.edge.ring.seal(token).encode("ascii")
    return json_answer(view, headers=[(b"x-subject-token", text), (b"vary", b"X-Auth-Token")])


def add(routes: Routes) -> None:
    """Route what this module answers."""
    routes.add("POST", "/v3/ec2tokens", ec2_token, USE, body=_ec2)
    routes.add("POST", "/v3/s3tokens", s3_token, USE, body=_s3)
