"""Signatures of Amazon's APIs: version 2 and 4 of requests (EC2), and of what S3 has signed.

Whoever has the secret signs, and the secret is never sent. Invariant: signatures are compared in
constant time; a request is good for a quarter of an hour, or as long as its own signed end says.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import quote

from msgspec import Meta, Struct

from schemas.units import LongText, Text

FRESH = timedelta(minutes=15)
PRESIGNED_MAX = timedelta(days=7)
V4 = "AWS4-HMAC-SHA256"


# Names and values of a query or of headers.
Pairs = Annotated[dict[str, LongText], Meta(max_length=1000)]


class SignedRequest(Struct, frozen=True):
    """A request as who received it hands it on: Keystone's form of EC2 credentials."""

    access: Text
    signature: Text
    host: Text = ""
    verb: Text = "GET"
    path: LongText = "/"
    params: Pairs = {}
    headers: Pairs = {}
    body_hash: Text = ""  # SHA-256 (hex) of the body; version 4 signs it


def is_signed(request: SignedRequest, secret: str, at: datetime) -> bool:
    """Say whether a request was signed with a secret, not long before a time."""
    try:
        if request.params.get("SignatureVersion") == "2":
            fresh, made = _fresh_v2(request.params, at), _v2(request, secret)
        else:
            fresh, made = _v4(request, secret, at)
    except (KeyError, ValueError, OverflowError):
        return False
    return hmac.compare_digest(made.encode(), request.signature.encode()) and fresh


def is_signed_for_s3(text: bytes, signature: str, secret: str) -> bool:
    """Say whether a string to sign, as S3 has made it, was signed with a secret.

    When that was, and for how long it counts, is for who has made it of a request.
    """
    try:
        if text.startswith(b"AWS4"):
            scope = text.decode("ascii").split("\n")[2].split("/")
            made = _mac(_key(secret, *scope[:3]), text).hex()
        else:
            digest = hmac.new(secret.encode(), text, hashlib.sha1).digest()
            made = base64.b64encode(digest).decode()
    except (IndexError, TypeError, ValueError):
        return False
    return hmac.compare_digest(made.encode(), signature.encode())


def string_to_sign(token: str) -> bytes:
    """Return what S3 has signed, which comes as base64.

    Raises:
        ValueError: it is none.
    """
    try:
        return base64.b64decode(token, altchars=b"-_" if {"-", "_"} & {*token} else None)
    except binascii.Error as error:
        raise ValueError("it is not base64") from error


# Version 2


def _v2(request: SignedRequest, secret: str) -> str:
    params = {name: value for name, value in request.params.items() if name != "Signature"}
    text = f"{request.verb}\n{request.host}\n{request.path}\n{_query(params)}"
    digests = {"HmacSHA256": hashlib.sha256, "HmacSHA1": hashlib.sha1}
    digest = digests[params["SignatureMethod"]]
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), digest).digest()).decode()


def _fresh_v2(params: Mapping[str, str], at: datetime) -> bool:
    if "Expires" in params:
        return at < _instant(params["Expires"]) <= at + PRESIGNED_MAX
    return abs(at - _instant(params["Timestamp"])) <= FRESH


def _instant(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


# Version 4


def _v4(request: SignedRequest, secret: str, at: datetime) -> tuple[bool, str]:
    """Return whether the request counts now, and its signature."""
    headers = {name.lower().strip(): " ".join(v.split()) for name, v in request.headers.items()}
    told = _authorization(headers, request.params)
    _, day, region, service, *_ = told["Credential"].split("/")
    date = headers.get("x-amz-date") or request.params["X-Amz-Date"]
    if not date.startswith(day):
        raise ValueError("the day is another than the scope's")
    signed = told["SignedHeaders"].split(";")
    canonical = "\n".join(
        (
            request.verb.upper(),
            request.path,
            # What a form says is in the body, and signed with it.
            "" if request.verb.upper() == "POST" else _query(_without_signature(request.params)),
            *(f"{name}:{headers[name]}" for name in signed),
            "",
            told["SignedHeaders"],
            request.body_hash,
        )
    )
    scope = f"{day}/{region}/{service}/aws4_request"
    text = "\n".join((V4, date, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    made = _mac(_key(secret, day, region, service), text.encode()).hex()
    since = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    lifetime = FRESH
    if "X-Amz-Expires" in request.params:
        lifetime = min(timedelta(seconds=int(request.params["X-Amz-Expires"])), PRESIGNED_MAX)
    return since - FRESH <= at <= since + lifetime, made


def _authorization(headers: Mapping[str, str], params: Mapping[str, str]) -> dict[str, str]:
    text = headers.get("authorization", "")
    if text.startswith(f"{V4} "):
        pairs = (part.strip().partition("=") for part in text[len(V4) :].split(","))
        return {name: value for name, _, value in pairs}
    if params["X-Amz-Algorithm"] != V4:
        raise ValueError("another algorithm")
    return {name: params[f"X-Amz-{name}"] for name in ("Credential", "SignedHeaders")}


def _without_signature(params: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in params.items() if name != "X-Amz-Signature"}


def _query(params: Mapping[str, str]) -> str:
    pairs = sorted((quote(k, safe="-_.~"), quote(v, safe="-_.~")) for k, v in params.items())
    return "&".join(f"{name}={value}" for name, value in pairs)


def _key(secret: str, day: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = _mac(key, part.encode())
    return key


def _mac(key: bytes, text: bytes) -> bytes:
    return hmac.new(key, text, hashlib.sha256).digest()
