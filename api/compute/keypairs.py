"""Keypairs: public keys that servers can be made with. They belong to users, not to projects.

A private key generated here is returned once and kept nowhere.
"""

import base64
import binascii
import hashlib
import re
from typing import Annotated, Any, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from msgspec import Meta, Struct

from api.compute.views import keypair_view
from api.errors import NotOffered
from api.exchange import Answer, Call, json_answer
from api.routing import Routes
from api.times import micros_naive
from api.writing import write
from schemas.compute import CreateKeypair, DeleteKeypair, Keypair
from schemas.errors import InvalidInput, NotFound
from schemas.units import Text

_NAME = re.compile(r"[A-Za-z0-9 _.@-]{1,255}\Z")


class _NewKeypair(Struct, frozen=True, forbid_unknown_fields=True):
    name: Text
    public_key: Annotated[str, Meta(max_length=16384)] | None = None


class _NewKeypairBody(Struct, frozen=True, forbid_unknown_fields=True):
    keypair: _NewKeypair


class _TypedKeypair(_NewKeypair, frozen=True, forbid_unknown_fields=True):
    type: Literal["ssh", "x509"] = "ssh"


class _TypedKeypairBody(Struct, frozen=True, forbid_unknown_fields=True):
    keypair: _TypedKeypair


TYPED = (2, 2)  # from here on keypairs have a type, and the statuses of their calls are exact

_new_keypair = msgspec.json.Decoder(_NewKeypairBody)
_typed_keypair = msgspec.json.Decoder(_TypedKeypairBody)


def fingerprint(public_key: str) -> str:
    """Return the MD5 fingerprint of an OpenSSH public key, colon-separated as clients show it.

    Raises:
        InvalidInput: it is not such a key.
    """
    words = public_key.split(None, 2)
    if len(public_key.strip().splitlines()) > 1:
        raise InvalidInput("public_key must be one key, on one line")
    try:
        blob = base64.b64decode(words[1], validate=True)
        size = int.from_bytes(blob[:4], "big")
    except (IndexError, binascii.Error, ValueError) as error:
        raise InvalidInput("public_key must be a key in OpenSSH's format") from error
    if blob[4 : 4 + size] != words[0].encode("utf-8") or len(blob) <= 4 + size:
        raise InvalidInput("public_key is not of the kind it says it is")
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digest[at : at + 2] for at in range(0, 32, 2))


def generate(comment: str) -> tuple[str, str]:
    """Return a fresh Ed25519 private key (OpenSSH PEM) and its public key."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return private, f"{public} {comment}\n"


async def create(call: Call) -> Answer:
    """POST /os-keypairs, until 2.1."""
    wish = (await call.decode(_new_keypair)).keypair
    return json_answer({"keypair": await _made(call, wish)})


async def create_typed(call: Call) -> Answer:
    """POST /os-keypairs."""
    wish = (await call.decode(_typed_keypair)).keypair
    if wish.type != "ssh":
        raise NotOffered("of the types of keypairs, ssh is offered")
    return json_answer({"keypair": {**await _made(call, wish), "type": "ssh"}}, 201)


async def _made(call: Call, wish: _NewKeypair) -> dict[str, Any]:
    name = wish.name.strip()
    if not _NAME.match(name):
        raise InvalidInput("a keypair's name has 1 to 255 letters, digits, blanks and _ . @ - only")
    private: str | None = None
    public = wish.public_key
    if public is None:
        private, public = generate(f"generated-by-cumulog-for-{call.principal.user_id}")
    await write(call, CreateKeypair(name=name, public_key=public, fingerprint=fingerprint(public)))
    if call.repeated:  # the private key was told once, and belongs to the public one made then
        return {**keypair_view(_named(call, name), typed=False), "user_id": call.principal.user_id}
    view: dict[str, Any] = {
        "name": name,
        "public_key": public,
        "fingerprint": fingerprint(public),
        "user_id": call.principal.user_id,
    }
    if private is not None:
        view["private_key"] = private
    return view


def _find(call: Call) -> Keypair:
    return _named(call, call.args[0])


def _named(call: Call, name: str) -> Keypair:
    keypair = call.edge.reader.keypair(call.principal.user_id, name)
    if keypair is None:
        raise NotFound(f"there is no keypair {name[:64]!r}")
    return keypair


async def list_all(call: Call) -> Answer:
    """GET /os-keypairs: the caller's, all of them: pages came with 2.35."""
    keypairs = call.edge.reader.keypairs(call.principal.user_id)
    views = [{"keypair": keypair_view(k, typed=call.microversion >= TYPED)} for k in keypairs]
    return json_answer({"keypairs": views})


async def show(call: Call) -> Answer:
    """GET /os-keypairs/{name}."""
    keypair = _find(call)
    view = {
        **keypair_view(keypair, typed=call.microversion >= TYPED),
        # Older clients want a number; it identifies nothing.
        "id": int(hashlib.sha256(keypair.name.encode()).hexdigest()[:7], 16),
        "user_id": keypair.user_id,
        "created_at": micros_naive(keypair.created_at),
        "updated_at": None,
        "deleted": False,
        "deleted_at": None,
    }
    return json_answer({"keypair": view})


async def delete(call: Call) -> Answer:
    """DELETE /os-keypairs/{name}."""
    await write(call, DeleteKeypair(name=_find(call).name))
    return Answer(204 if call.microversion >= TYPED else 202)


def add(routes: Routes) -> None:
    """Route what this module answers."""
    read = "compute:keypairs:read"
    routes.add("GET", "/v2.1/os-keypairs", list_all, read)
    one, make = "/v2.1/os-keypairs/{}", "CreateKeypair"
    routes.add("POST", "/v2.1/os-keypairs", create, make, body=_new_keypair, until="2.1")
    routes.add(
        "POST", "/v2.1/os-keypairs", create_typed, make, body=_typed_keypair, status=201,
        partly=True, since="2.2",
    )  # fmt: skip
    routes.add("GET", one, show, read)
    routes.add("DELETE", one, delete, "DeleteKeypair", status=202, bare=(202,), until="2.1")
    routes.add("DELETE", one, delete, "DeleteKeypair", status=204, since="2.2")
