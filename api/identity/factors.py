"""What somebody has proven, and whether that is all that is asked of them.

A user with several factors has rules, each a list of methods; whoever has proven all of one rule
gets a token. Who has proven some gets a receipt, which stands for them for a few minutes.
Invariant: a receipt is no token, and counts only while its user's tokens of that time would.
"""

import secrets

from msgspec import Struct

from api.auth import now
from api.exchange import Answer, Call, json_answer
from api.times import micros_z
from api.tokens import Receipt, decode_receipt
from schemas.errors import Unauthorized
from schemas.identity import ApplicationCredential, User
from schemas.units import MINUTE, Micros

WRONG = "the user, password or scope is not right"
RECEIPT_HEADER = b"openstack-auth-receipt"
RECEIPT_LIFETIME: Micros = 5 * MINUTE


class Proof(Struct, frozen=True, kw_only=True):
    """Who somebody has proven to be. ``expires_at`` bounds the token that is given for it."""

    user: User
    methods: tuple[str, ...]
    expires_at: Micros | None = None
    parent_audit_id: str = ""  # of the token that it was proven with
    application_credential: ApplicationCredential | None = None
    # The identity provider that has vouched for the user, and how it spoke.
    idp_id: str = ""
    protocol_id: str = ""


class FactorsMissing(Unauthorized):
    """What was proven is right, and not enough."""

    hint = "Send the receipt in the header Openstack-Auth-Receipt with the methods that are left."

    def __init__(self, proof: Proof) -> None:
        super().__init__("more methods of signing in are needed")
        self.proof = proof


def need_factors(call: Call, proof: Proof) -> None:
    """Let those pass who have proven all that one of their rules asks for.

    Raises:
        FactorsMissing: something is left to be proven.
    """
    options = proof.user.options
    if not options.multi_factor_auth_enabled or not options.multi_factor_auth_rules:
        return
    proven = frozenset(proof.methods)
    if not any(proven.issuperset(rule) for rule in options.multi_factor_auth_rules if rule):
        call.reason = "more methods of signing in are needed"
        raise FactorsMissing(proof)


def receipt_answer(call: Call, proof: Proof) -> Answer:
    """Return the 401 that gives a receipt and says what is missing, as Keystone does."""
    user, issued_at = proof.user, now()
    receipt = Receipt(
        receipt_id=secrets.token_urlsafe(16),
        user_id=user.user_id,
        issued_at=max(issued_at, user.tokens_valid_from),
        expires_at=issued_at + RECEIPT_LIFETIME,
        methods=proof.methods,
    )
    domain = call.edge.reader.domain(user.domain_id)
    body = {
        "receipt": {
            "methods": list(proof.methods),
            "user": {
                "id": user.user_id,
                "name": user.name,
                "domain": {"id": user.domain_id, "name": domain.name if domain else ""},
            },
            "issued_at": micros_z(receipt.issued_at),
            "expires_at": micros_z(receipt.expires_at),
        },
        "required_auth_methods": [list(rule) for rule in user.options.multi_factor_auth_rules],
    }
    headers = [
        (RECEIPT_HEADER, call.edge.ring.seal(receipt).encode("ascii")),
        (b"www-authenticate", f'Keystone uri="{call.base}/identity"'.encode("latin-1")),
    ]
    return json_answer(body, 401, headers=headers)


async def opened(call: Call, text: str) -> Proof:
    """Return what a receipt was given for.

    Raises:
        Unauthorized: it is none of ours, too old, or its user has changed since.
    """
    edge = call.edge
    receipt = await edge.ring.open_as(text, decode_receipt)
    user = None if receipt is None else edge.reader.user(receipt.user_id)
    if receipt is None or user is None or not user.enabled:
        raise Unauthorized(WRONG)
    if receipt.expires_at <= now() or receipt.issued_at < user.tokens_valid_from:
        raise Unauthorized(WRONG)
    return Proof(user=user, methods=receipt.methods)
