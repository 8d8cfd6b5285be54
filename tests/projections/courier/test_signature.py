"""Signatures as https://www.standardwebhooks.com has them."""

import pytest

from projections.courier.signature import headers, new_secret, secret_bytes
from schemas.errors import InvalidInput


def test_a_signature_is_that_of_the_specification():
    """The example of its reference implementations."""
    secret = secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    told = dict(headers(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body))
    assert told == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_fresh_secret_is_one():
    assert len(secret_bytes(new_secret())) == 32
    assert new_secret() != new_secret()


@pytest.mark.parametrize(
    "text", ["", "secret", "whsec_", "whsec_!!!!", "whsec_AAAA", "whsec_" + "A" * 88 + "AAAA"]
)
def test_what_is_no_secret_is_refused_and_not_quoted(text):
    with pytest.raises(InvalidInput) as refused:
        secret_bytes(text)
    assert not text or len(text) < 7 or text not in refused.value.reason
