"""Secrets of incoming requests, sealed before they go anywhere.

Passwords are hashed, then sealed under a key of their user's own; user data under its project's.
Invariant: no plaintext secret leaves this process, and none is kept.
"""

import base64
import binascii
from typing import Any

import msgspec
import uuid_utils

from api.edge import Edge
from engine.bus.keys import KeyMissing
from engine.domain.identity.password import need_fit
from engine.sealing import SealBroken, seal, unseal
from schemas.errors import InvalidInput
from schemas.identity import Project, User
from schemas.sealed import Sealed
from schemas.units import Micros

USER_DATA_CHARS_MAX = 65535  # of base64, as in Nova


async def seal_password(edge: Edge, password: str, owner: User | None = None) -> Sealed:
    """Return the hash of a password, sealed under its owner's key; a new user gets a new key.

    Raises:
        InvalidInput: the password is empty, too long, or not as the operator's policy wants it.
    """
    need_fit(edge.reader.password_policy(), password)
    return await seal_secret(edge, password, owner)


async def seal_secret(edge: Edge, secret: str, owner: User | None) -> Sealed:
    """Return the hash of what is as good as a password, sealed likewise.

    Raises:
        InvalidInput: it is empty or too long.
    """
    encoded = await edge.passwords.hash(secret)
    return await _seal(edge, _key_of(owner), encoded.encode())


def _key_of(owner: User | None) -> str:
    """Return the name of a user's key; of one who has none, a new one."""
    if owner is not None and owner.password is not None:
        return owner.password.key_id
    return f"user-{uuid_utils.uuid4().hex}"


async def seal_text(edge: Edge, text: str, owner: User) -> Sealed:
    """Return a text sealed under its owner's key."""
    return await _seal(edge, _key_of(owner), text.encode())


async def seal_client_secret(edge: Edge, secret: str) -> Sealed:
    """Return what this cloud shows to an identity provider, sealed under a key of its own."""
    return await _seal(edge, f"idp-{uuid_utils.uuid4().hex}", secret.encode())


async def open_text(edge: Edge, value: Sealed) -> str | None:
    """Return a text that was sealed; None if its key was destroyed."""
    try:
        return (await open_sealed(edge, value)).decode()
    except (KeyMissing, SealBroken):
        return None


async def seal_user_data(edge: Edge, project: Project, text: str) -> Sealed:
    """Return base64 user data, decoded and sealed under its project's key.

    Raises:
        InvalidInput: it is not base64, or too long.
    """
    if len(text) > USER_DATA_CHARS_MAX:
        raise InvalidInput(f"user_data has at most {USER_DATA_CHARS_MAX} characters of base64")
    try:
        plaintext = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput("user_data must be base64") from error
    return await _seal(edge, project.secrets_key_id, plaintext)


async def seal_for_project(edge: Edge, project: Project, secret: bytes) -> Sealed:
    """Return a secret of a project, sealed under the project's key."""
    return await _seal(edge, project.secrets_key_id, secret)


async def password_hash(edge: Edge, user: User) -> str | None:
    """Return the hash of a user's password; None if nobody can sign in with one.

    That is so for users that are disabled, have no password, or whose key was destroyed.
    """
    if not user.enabled or user.password is None:
        return None
    return await secret_hash(edge, user.password)


async def need_unused(edge: Edge, user: User, password: str) -> None:
    """Let a user take a password that is not among its last ones, as the policy wants it.

    Raises:
        InvalidInput: it is.
    """
    wanted = edge.reader.password_policy().history
    held = () if user.password is None else (user.password,)
    for earlier in (*held, *user.password_history)[:wanted]:
        if await edge.passwords.verify(await secret_hash(edge, earlier), password):
            raise InvalidInput(f"the password is one of the user's last {wanted}", history=wanted)


def password_ends_at(user: User) -> Micros | None:
    """Return when a user's password must be changed; None if never."""
    if user.password is None or user.options.ignore_password_expiry:
        return None
    return user.password_expires_at


async def secret_hash(edge: Edge, secret: Sealed) -> str | None:
    """Return the hash that was sealed of a secret; None if its key was destroyed."""
    try:
        return (await open_sealed(edge, secret)).decode()
    except (KeyMissing, SealBroken):
        return None


async def open_sealed(edge: Edge, value: Sealed) -> bytes:
    """Return the plaintext of a sealed value.

    Raises:
        KeyMissing: its key was destroyed, and with it the value.
        SealBroken: it was altered.
    """
    return unseal(await edge.keys.get_key(value.key_id), value)


async def _seal(edge: Edge, key_id: str, plaintext: bytes) -> Sealed:
    return seal(await edge.keys.create_key(key_id), key_id, plaintext)


async def seal_action(
    edge: Edge, project: Project | None, action: dict[str, Any]
) -> dict[str, Any]:
    """Return an action of the native API with the plaintext it may hold sealed.

    ``password`` of CreateUser and UpdateUser may be text, and so may ``user_data`` (base64) of
    CreateServer. All else is left as it is, for the schema to judge.

    A value that is sealed already is refused: it may be another's, read in the log, and would be
    opened for the caller's own guest or become a password.

    Raises:
        InvalidInput: a secret is malformed or sealed, or there is no project to seal it for.
    """
    kind = action.get("type")
    for name in ("password", "user_data"):
        if isinstance(action.get(name), dict):
            raise InvalidInput(f"{name} is given as text; this cloud seals it itself")
    if action.get("key_id"):
        raise InvalidInput("key_id is not given: this cloud chooses the keys of what it seals")
    oidc = action.get("oidc")
    if isinstance(oidc, dict) and (secret := oidc.get("client_secret")) is not None:
        if not isinstance(secret, str):
            raise InvalidInput("client_secret is given as text; this cloud seals it itself")
        sealed = await seal_client_secret(edge, secret)
        return {**action, "oidc": {**oidc, "client_secret": msgspec.to_builtins(sealed)}}
    if kind in {"CreateUser", "UpdateUser"} and isinstance(action.get("password"), str):
        user_id = action.get("user_id")
        owner = edge.reader.user(user_id) if isinstance(user_id, str) else None
        sealed = await seal_password(edge, action["password"], owner)
        return {**action, "password": msgspec.to_builtins(sealed)}
    if kind == "CreateServer" and isinstance(action.get("user_data"), str):
        if project is None:
            raise InvalidInput("user_data needs a token scoped to a project")
        sealed = await seal_user_data(edge, project, action["user_data"])
        return {**action, "user_data": msgspec.to_builtins(sealed)}
    return action
