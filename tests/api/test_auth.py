"""Who a token speaks for, read from a real read model."""

import time
from pathlib import Path

import pytest

from api.auth import Authenticator
from api.tokens import Token, TokenRing
from projections.reader import Reader
from schemas.errors import Unauthorized, Unavailable
from tests.api.test_parts import Ring


def test_a_read_model_that_is_not_there_is_no_reason_to_let_anybody_in(tmp_path: Path):
    authenticator = Authenticator(TokenRing(Ring()), Reader(tmp_path / "none.sqlite"))
    token = Token(
        user_id="u", project_id="", audit_id="a", issued_at=1, expires_at=2**50, methods=()
    )

    with pytest.raises(Unavailable):
        authenticator.look_up(token)


async def test_an_expired_token_is_refused_before_anything_is_read(tmp_path: Path):
    ring = TokenRing(Ring())
    await ring.refresh()
    now = time.time_ns() // 1000
    token = Token(
        user_id="u", project_id="", audit_id="a", issued_at=1, expires_at=now - 1, methods=()
    )
    authenticator = Authenticator(ring, Reader(tmp_path / "none.sqlite"))

    with pytest.raises(Unauthorized, match="expired"):
        await authenticator.principal(ring.seal(token))
    with pytest.raises(Unauthorized, match="needs a token"):
        await authenticator.principal("")
