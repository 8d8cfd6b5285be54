"""What a password must be: patterns of every kind, and none that could take long."""

import pytest

from engine.domain.identity.password import need_fit, parts
from schemas.errors import InvalidInput
from schemas.identity import PasswordPolicy, SetPasswordPolicy
from tests.engine.world import World

KEYSTONES = r"^(?=.*\d)(?=.*[a-zA-Z]).{7,}$"

FIT = [
    ("", "x", True),
    (KEYSTONES, "abcdef1", True),
    (KEYSTONES, "abcde1", False),
    (KEYSTONES, "abcdefg", False),
    (KEYSTONES, "1234567", False),
    (r"^(?!.*pass)(?=[\])(a-z]+$)", "abc)]", True),
    (r"^(?!.*pass)(?=[\])(a-z]+$)", "mypass", False),
    (r"^(?=[])x]+$).{2}", "])", True),
    (r"^(?=[])x]+$).{2}", "ab", False),
    (r"^(?=(?:a|\)b).*)(?:x|.)", ")b", True),
    (r"^(?=(?:a|\)b).*)(?:x|.)", "bb", False),
    (r"^(?!root$)", "root", False),
    (r"^(?!root$)", "roots", True),
    (r"[0-9]|[!?]", "ab!", True),
    (r"^[0-9]+$", "12a", False),
]


@pytest.mark.parametrize(("pattern", "password", "fits"), FIT)
def test_a_password_fits_a_pattern(pattern, password, fits):
    policy = PasswordPolicy(pattern=pattern, pattern_hint="as told")

    if fits:
        need_fit(policy, password)
    else:
        with pytest.raises(InvalidInput, match="as told") as caught:
            need_fit(policy, password)
        assert password not in caught.value.reason


def test_a_password_can_be_too_short():
    need_fit(PasswordPolicy(length_min=3), "äöü")
    with pytest.raises(InvalidInput, match="at least 3"):
        need_fit(PasswordPolicy(length_min=3), "äö")


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        "[a",
        r"(a)\1",
        "a(?=b)",
        "(?<=a)b",
        "^(?=a",
        "^(?=a)b|c",
        "^(?=(?=a))",
        "((((a{1,100}){1,100}){1,100}){1,100}){1,100}",
    ],
)
def test_a_pattern_that_cannot_be_used_is_not_set(pattern):
    world = World()

    refused = world.refused(world.admin, SetPasswordPolicy(policy=PasswordPolicy(pattern=pattern)))

    assert refused.code == "InvalidInput"
    assert "the pattern cannot be used" in refused.reason


def test_a_pattern_that_backtracks_elsewhere_ends():
    """With an engine that backtracks, this test would not end before the sun does."""
    with pytest.raises(InvalidInput):
        need_fit(PasswordPolicy(pattern="^(a+)+$"), "a" * 4000 + "b")


def test_lock_out_needs_a_number_and_a_time():
    world = World()
    for policy in (PasswordPolicy(lockout_attempts=3), PasswordPolicy(lockout_s=60)):
        refused = world.refused(world.admin, SetPasswordPolicy(policy=policy))
        assert refused.code == "InvalidInput"


def test_nothing_is_asked_of_passwords_without_a_pattern():
    assert parts("") == ()
