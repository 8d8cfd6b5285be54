"""What is sealed opens with its key alone, and not at all once a bit of it has changed."""

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.sealing import SealBroken, rewrap, seal, unseal
from schemas.sealed import Sealed

KEY, OTHER = b"k" * 32, b"o" * 32


@given(st.binary(max_size=2000))
def test_what_was_sealed_is_unsealed(plaintext):
    sealed = seal(KEY, "project-1", plaintext)

    assert unseal(KEY, sealed) == plaintext
    assert sealed.key_id == "project-1"
    assert msgspec.json.decode(msgspec.json.encode(sealed), type=Sealed) == sealed


def test_the_same_value_is_never_sealed_twice_alike():
    one, two = seal(KEY, "a", b"secret"), seal(KEY, "a", b"secret")

    assert one.ciphertext != two.ciphertext
    assert one.wrapped_key != two.wrapped_key
    assert one.nonce != two.nonce


def test_another_key_opens_nothing():
    with pytest.raises(SealBroken, match="project-1"):
        unseal(OTHER, seal(KEY, "project-1", b"secret"))


@pytest.mark.parametrize("field", ["wrapped_key", "nonce", "ciphertext"])
@given(data=st.data())
def test_no_bit_can_change(field, data):
    sealed = seal(KEY, "a", b"secret")
    raw = bytearray(base64.b64decode(getattr(sealed, field)))
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    altered = msgspec.structs.replace(sealed, **{field: base64.b64encode(raw).decode()})

    with pytest.raises(SealBroken):
        unseal(KEY, altered)


@pytest.mark.parametrize("junk", ["", "!", "AAAA", "ü"])
@pytest.mark.parametrize("field", ["wrapped_key", "nonce", "ciphertext"])
def test_junk_is_refused_with_the_same_error(field, junk):
    with pytest.raises(SealBroken):
        unseal(KEY, msgspec.structs.replace(seal(KEY, "a", b"x"), **{field: junk}))


def test_a_value_cannot_be_passed_off_as_another_owners():
    sealed = seal(KEY, "a", b"secret")

    with pytest.raises(SealBroken):
        unseal(KEY, msgspec.structs.replace(sealed, key_id="b"))


def test_a_rewrapped_value_opens_with_the_other_key_only():
    sealed = rewrap(KEY, seal(KEY, "project", b"secret"), OTHER, "host")

    assert unseal(OTHER, sealed) == b"secret"
    assert sealed.key_id == "host"
    with pytest.raises(SealBroken):
        unseal(KEY, sealed)
    with pytest.raises(SealBroken):
        rewrap(KEY, sealed, OTHER, "host")
