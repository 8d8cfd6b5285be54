"""Who a token speaks for, read from a real read model."""

import time
from pathlib import Path

import pytest

from api.auth import Authenticator
from api.tokens import Token, TokenRing
from projections import files, models
from projections.reader import Reader
from schemas.errors import Unauthorized, Unavailable
from schemas.identity import RevokeToken
from tests.api.test_parts import Ring
from tests.projections.conftest import closed  # noqa: F401  # ends what the story opens
from tests.projections.story import OPENED, Story, a_small_story, reading


def test_a_read_model_that_is_not_there_is_no_reason_to_let_anybody_in(tmp_path: Path):
    authenticator = Authenticator(TokenRing(Ring()), Reader(tmp_path / "none.sqlite"), lambda: 0)
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
    authenticator = Authenticator(ring, Reader(tmp_path / "none.sqlite"), lambda: 0)

    with pytest.raises(Unauthorized, match="expired"):
        await authenticator.principal(ring.seal(token))
    with pytest.raises(Unauthorized, match="needs a token"):
        await authenticator.principal("")
    with pytest.raises(Unauthorized, match="expired"):
        await authenticator.principal(ring.seal(token), expired_for=1)
    with pytest.raises(Unavailable):  # let through, and looked up where there is nothing
        await authenticator.principal(ring.seal(token), expired_for=3600 * 10**6)


def signed_in(story: Story, path: Path) -> tuple[Authenticator, TokenRing, Token, list[int]]:
    """Return an authenticator of a story's read model, a member's token, and where reads are."""
    position = [0]
    ring = TokenRing(Ring())
    reader = reading(story, path)
    position[0] = reader.position()
    token = Token(
        user_id=story.demo.user_id,
        project_id=story.demo.project_id,
        audit_id="a",
        issued_at=story.now,
        expires_at=2**52,
        methods=("password",),
    )
    return Authenticator(ring, reader, lambda: position[0]), ring, token, position


async def test_a_principal_is_looked_up_again_only_when_identity_has_changed(tmp_path: Path):
    story = a_small_story()
    authenticator, ring, token, position = signed_in(story, tmp_path / "n.sqlite")
    await ring.refresh()
    text = ring.seal(token)
    first = await authenticator.principal(text)
    writer = files.open_current(tmp_path / "n.sqlite")
    assert writer is not None
    OPENED.append(writer.db)

    def goes_on() -> None:
        for seq, data in story.commits:
            models.apply_commit(writer, seq, data)
        writer.commit()
        position[0] = writer.position.ordinal

    story.server(story.demo, name="more")
    goes_on()
    assert await authenticator.principal(text) is first

    story.ok(story.demo, RevokeToken(audit_id="other", expires_at=2**52))
    goes_on()
    second = await authenticator.principal(text)
    assert second is not first

    story.ok(story.demo, RevokeToken(audit_id="a", expires_at=2**52))
    goes_on()
    with pytest.raises(Unauthorized, match="revoked"):
        await authenticator.principal(text)
