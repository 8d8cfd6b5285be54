"""Keys of users: any kind as ``/credentials``, EC2 and S3 keys also as ``OS-EC2``.

Invariant: what a key says (``blob``) is sealed before it leaves this process, and opened only for
its user and for administrators. A program that acts for a user sees what it has made itself: with
the other keys it could do all that its user may.
"""

import secrets
from hashlib import sha256
from typing import Annotated, Any

import msgspec
import uuid_utils
from msgspec import Meta, Struct

from api.exchange import Answer, Call, json_answer
from api.identity.lists import link, listing
from api.routing import Routes
from api.sealing_inbound import open_text, seal_text
from api.writing import write
from engine.domain.context import Reach
from schemas.errors import Forbidden, InvalidInput, NotFound
from schemas.identity import CreateCredential, Credential, DeleteCredential, UpdateCredential, User
from schemas.units import Text

READ = "identity:credentials:read"
EC2 = "ec2"
BLOB_CHARS_MAX = 16_384


Blob = Annotated[str, Meta(max_length=BLOB_CHARS_MAX)]


class _New(Struct, frozen=True, forbid_unknown_fields=True):
    type: Text
    blob: Blob
    user_id: Text | None = None
    project_id: Text | None = None


class _NewBody(Struct, frozen=True, forbid_unknown_fields=True):
    credential: _New


class _Change(Struct, frozen=True, forbid_unknown_fields=True):
    blob: Blob | None = None
    type: Text | None = None
    user_id: Text | None = None
    project_id: Text | None = None


class _ChangeBody(Struct, frozen=True, forbid_unknown_fields=True):
    credential: _Change


class _NewEc2(Struct, frozen=True, forbid_unknown_fields=True):
    tenant_id: Text


class Ec2Blob(Struct, frozen=True):
    """What is in the blob of an EC2 key, beside what else its maker put there."""

    access: str
    secret: str


_new = msgspec.json.Decoder(_NewBody)
_change = msgspec.json.Decoder(_ChangeBody)
_new_ec2 = msgspec.json.Decoder(_NewEc2)
_decode_ec2 = msgspec.json.Decoder(Ec2Blob).decode


def ec2_id(access: str) -> str:
    """Return the id of the credential with an access key."""
    return sha256(access.encode()).hexdigest()


def _ec2_blob(blob: str) -> Ec2Blob:
    try:
        return _decode_ec2(blob)
    except msgspec.MsgspecError as error:
        raise InvalidInput(
            "the blob of an ec2 credential is JSON with access and secret"
        ) from error


def _reaches(call: Call, reach: Reach, user_id: str) -> bool:
    return reach.any or (reach.user and user_id == call.principal.user_id)


def _user(call: Call, user_id: str, action: str) -> User:
    """Return the user whose key is meant.

    Raises:
        Forbidden: it is another's than the caller may touch.
        NotFound: there is no such user.
    """
    if not _reaches(call, call.allow(action), user_id):
        raise Forbidden("keys of other users are not yours to see or change")
    user = call.edge.reader.user(user_id)
    if user is None:
        raise NotFound(f"there is no user {user_id[:64]!r}")
    return user


def _sees(call: Call, credential: Credential) -> bool:
    """Whether the secret of a key that the caller reaches is shown to it."""
    token = call.principal.token
    program = token.application_credential_id
    if not (program or token.trust_id) or call.allow(READ).any:
        return True
    return bool(program) and credential.application_credential_id == program


def _find(call: Call, action: str) -> Credential:
    reach, ident = call.allow(action), call.args[0]
    credential = call.edge.reader.credential(ident)
    if credential is None or not _reaches(call, reach, credential.user_id):
        raise NotFound(f"there is no credential {ident[:64]!r}")
    if action == READ and not _sees(call, credential):
        raise NotFound(f"there is no credential {ident[:64]!r}")
    return credential


async def _view(call: Call, credential: Credential) -> dict[str, Any]:
    return {
        "id": credential.credential_id,
        "type": credential.type,
        "user_id": credential.user_id,
        "project_id": credential.project_id or None,
        "blob": await open_text(call.edge, credential.blob),
        "links": link(call, f"credentials/{credential.credential_id}"),
    }


async def _shown(call: Call, ident: str, status: int = 200) -> Answer:
    credential = call.edge.reader.credential(ident)
    # A program may repeat, under its key, what its user has made.
    if credential is None or not _sees(call, credential):
        raise NotFound(f"there is no credential {ident!r}")
    return json_answer({"credential": await _view(call, credential)}, status)


async def list_credentials(call: Call) -> Answer:
    """GET /credentials: one's own, or all for administrators."""
    reach = call.allow(READ)
    own = None if reach.any else call.principal.user_id
    asked = call.param("user_id") or own
    if own is not None and asked != own:
        return listing(call, "credentials", [])
    found = call.edge.reader.credentials(user_id=asked, kind=call.param("type") or None)
    seen = [one for one in found if _sees(call, one)]
    return listing(call, "credentials", [await _view(call, one) for one in seen])


async def create_credential(call: Call) -> Answer:
    """POST /credentials."""
    wish = (await call.decode(_new)).credential
    user = _user(call, wish.user_id or call.principal.user_id, "CreateCredential")
    access = _ec2_blob(wish.blob).access if wish.type == EC2 else ""
    reply = await write(
        call,
        CreateCredential(
            user_id=user.user_id,
            kind=wish.type,
            blob=await seal_text(call.edge, wish.blob, user),
            project_id=wish.project_id,
            access=access,
            credential_id=ec2_id(access) if access else None,
        ),
    )
    return await _shown(call, reply["credential_id"], 201)


async def show_credential(call: Call) -> Answer:
    """GET /credentials/{id}."""
    return json_answer({"credential": await _view(call, _find(call, READ))})


async def change_credential(call: Call) -> Answer:
    """PATCH /credentials/{id}: its blob and project; an EC2 key keeps its access key."""
    wish = (await call.decode(_change)).credential
    credential = _find(call, "UpdateCredential")
    if wish.type not in {None, credential.type} or wish.user_id not in {None, credential.user_id}:
        raise InvalidInput("a credential keeps its type and its user")
    blob = access = None
    if wish.blob is not None:
        if credential.type == EC2:
            access = _ec2_blob(wish.blob).access
        user = _user(call, credential.user_id, "UpdateCredential")
        blob = await seal_text(call.edge, wish.blob, user)
    await write(
        call,
        UpdateCredential(
            credential_id=credential.credential_id,
            blob=blob,
            project_id=wish.project_id,
            access=access,
        ),
    )
    return await _shown(call, credential.credential_id)


async def delete_credential(call: Call) -> Answer:
    """DELETE /credentials/{id}."""
    credential = _find(call, "DeleteCredential")
    await write(call, DeleteCredential(credential_id=credential.credential_id))
    return Answer(204)


# EC2 and S3 keys


async def _ec2_view(call: Call, credential: Credential) -> dict[str, Any]:
    user_id, access = credential.user_id, credential.access
    text = await open_text(call.edge, credential.blob)
    return {
        "access": access,
        "secret": None if text is None else _ec2_blob(text).secret,
        "user_id": user_id,
        "tenant_id": credential.project_id,
        "trust_id": credential.trust_id or None,
        "links": link(call, f"users/{user_id}/credentials/OS-EC2/{access}"),
    }


def _find_ec2(call: Call, action: str) -> Credential:
    user = _user(call, call.args[0], action)
    credential = call.edge.reader.credential(ec2_id(call.args[1]))
    if credential is None or credential.type != EC2 or credential.user_id != user.user_id:
        raise NotFound(f"there is no access key {call.args[1][:64]!r}")
    if action == READ and not _sees(call, credential):
        raise NotFound(f"there is no access key {call.args[1][:64]!r}")
    return credential


async def list_ec2(call: Call) -> Answer:
    """GET /users/{id}/credentials/OS-EC2."""
    user = _user(call, call.args[0], READ)
    found = call.edge.reader.credentials(user_id=user.user_id, kind=EC2)
    seen = [one for one in found if _sees(call, one)]
    return listing(call, "credentials", [await _ec2_view(call, one) for one in seen])


async def create_ec2(call: Call) -> Answer:
    """POST /users/{id}/credentials/OS-EC2: for a project on which the user has a role."""
    project_id = (await call.decode(_new_ec2)).tenant_id
    user = _user(call, call.args[0], "CreateCredential")
    access, secret = uuid_utils.uuid4().hex, secrets.token_hex(16)
    blob = msgspec.json.encode({"access": access, "secret": secret, "trust_id": None}).decode()
    reply = await write(
        call,
        CreateCredential(
            user_id=user.user_id,
            kind=EC2,
            blob=await seal_text(call.edge, blob, user),
            project_id=project_id,
            access=access,
            credential_id=ec2_id(access),
        ),
    )
    credential = call.edge.reader.credential(reply["credential_id"])
    if credential is None or not _sees(call, credential):
        raise NotFound(f"there is no access key {access!r}")
    return json_answer({"credential": await _ec2_view(call, credential)}, 201)


async def show_ec2(call: Call) -> Answer:
    """GET /users/{id}/credentials/OS-EC2/{access}."""
    return json_answer({"credential": await _ec2_view(call, _find_ec2(call, READ))})


async def delete_ec2(call: Call) -> Answer:
    """DELETE /users/{id}/credentials/OS-EC2/{access}."""
    credential = _find_ec2(call, "DeleteCredential")
    await write(call, DeleteCredential(credential_id=credential.credential_id))
    return Answer(204)


def add(routes: Routes) -> None:
    """Route what this module answers."""
    every, one = "/v3/credentials", "/v3/credentials/{}"
    keys, key = "/v3/users/{}/credentials/OS-EC2", "/v3/users/{}/credentials/OS-EC2/{}"
    routes.add("GET", every, list_credentials, READ, query=("user_id", "type"))
    routes.add("POST", every, create_credential, "CreateCredential", body=_new, status=201)
    routes.add("GET", one, show_credential, READ)
    routes.add("PATCH", one, change_credential, "UpdateCredential", body=_change)
    routes.add("DELETE", one, delete_credential, "DeleteCredential", status=204)
    routes.add("GET", keys, list_ec2, READ)
    routes.add("POST", keys, create_ec2, "CreateCredential", body=_new_ec2, status=201)
    routes.add("GET", key, show_ec2, READ)
    routes.add("DELETE", key, delete_ec2, "DeleteCredential", status=204)
