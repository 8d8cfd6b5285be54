"""One-time codes: those of RFC 6238, within a step of now, once."""

import pytest

from api.identity.totp import base32, matching_step
from api.used_codes import UsedCodes
from schemas.units import SECOND

SECRET = b"12345678901234567890"
# Of RFC 6238, appendix B (SHA-1), the last six digits.
VECTORS = [
    (59, "287082"),
    (1111111109, "081804"),
    (1111111111, "050471"),
    (1234567890, "005924"),
    (2000000000, "279037"),
    (20000000000, "353130"),
]


@pytest.mark.parametrize(("seconds", "code"), VECTORS)
def test_codes_are_those_of_the_standard(seconds, code):
    assert matching_step(SECRET, code, seconds * SECOND) == seconds // 30


@pytest.mark.parametrize(("off_s", "taken"), [(-60, False), (-30, True), (30, True), (60, False)])
def test_a_clock_may_be_a_step_off(off_s, taken):
    step = matching_step(SECRET, "005924", (1234567890 + off_s) * SECOND)

    assert (step == 1234567890 // 30) is taken


def test_a_code_is_taken_once_and_none_of_before():
    used = UsedCodes()

    assert [used.take("c", step) for step in (10, 10, 9, 11)] == [True, False, False, True]
    assert used.take("d", 9)


def test_what_is_remembered_is_bounded():
    used = UsedCodes(kept_max=10)
    for number in range(100):
        used.take(str(number), 1)

    assert len(used) == 10


def test_secrets_are_read_as_people_write_them():
    assert base32(b"gezd gnbv gy3t qojq GEZDGNBVGY3TQOJQ") == SECRET
    with pytest.raises(ValueError):  # binascii's own
        base32(b"!")
