"""Checkpoints are believed only as they were signed, and outlive what was done to the log."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.log.checkpoint import (
    Book,
    CheckpointBroken,
    Loss,
    held,
    read_statement,
    require_contained,
    sign,
)
from engine.log.commit import ChainBroken
from engine.log.signing import KeysUnreadable, SigningKeys, key_id, read_public
from engine.log.verify import require_reached, verify
from tests.engine.log.test_export import ID, KEY, KEYS, a_checkpoint
from tests.engine.log.test_verify import a_log


def fetching(messages):
    return lambda seq: dict(messages).get(seq)


def test_a_statement_is_read_back():
    messages, _ = a_log()
    said = a_checkpoint(*messages[1])

    assert read_statement(sign(said, KEY), KEYS) == said


@pytest.mark.parametrize("place", range(0, 330, 7))
def test_a_changed_byte_is_not_believed(place):
    messages, _ = a_log()
    line = sign(a_checkpoint(*messages[1]), KEY)
    place %= len(line)
    altered = line[:place] + bytes([line[place] ^ 4]) + line[place + 1 :]

    with pytest.raises(CheckpointBroken):
        read_statement(altered, KEYS)


def test_the_log_must_contain_what_was_signed():
    messages, firsts = a_log()
    known = [a_checkpoint(*messages[0]), a_checkpoint(*messages[2])]
    other, _ = a_log(((1,), (0, 1), (3,)))

    require_contained(known, fetching(messages))
    for log in (messages[:2], [messages[0], *other[1:]]):
        with pytest.raises(ChainBroken, match="cut or written anew") as raised:
            require_contained(known, fetching(log))
        assert raised.value.ordinal == firsts[1]
    with pytest.raises(ChainBroken) as raised:
        require_contained(known, fetching([]))
    assert raised.value.ordinal == 1
    with pytest.raises(ChainBroken, match="it was cut") as raised:
        require_reached(verify(messages[:2], checkpoints=known), known)
    assert raised.value.ordinal == firsts[2]
    with pytest.raises(ChainBroken, match="written anew") as raised:
        verify([messages[0], *other[1:]], checkpoints=[known[0], a_checkpoint(*messages[1])])
    assert raised.value.ordinal == firsts[1]


def test_checkpoints_of_what_was_given_up_no_longer_count():
    messages, _ = a_log()
    first, last = a_checkpoint(*messages[0]), a_checkpoint(*messages[2])
    loss = Loss(
        at=6_000,
        cell="c",
        hash=first.hash,
        key=ID,
        ordinal=first.ordinal,
        sequence=1,
        lost=last.ordinal,
    )
    again = a_checkpoint(*messages[1], at=7_000)

    kept = held([sign(said, KEY) for said in (first, last, loss, again)], KEYS)

    assert kept.checkpoints == (first, again)
    assert kept.losses == (loss,)


def test_keys_rotate_and_old_checkpoints_still_count(tmp_path):
    keys = SigningKeys(tmp_path / "keys")
    messages, _ = a_log()
    lines = []
    for message in messages:
        name, key = keys.current()
        lines.append(sign(a_checkpoint(*message, key=key), key))
        assert keys.rotate() != name

    assert len(held(lines, keys.public()).checkpoints) == 3
    assert len(read_public(keys.public_pem())) == 4
    assert (tmp_path / "keys" / "checkpoint.key").stat().st_mode & 0o777 == 0o600
    assert keys.current()[0] == list(keys.public())[-1]


def test_a_key_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(KeysUnreadable):
        read_public(b"ssh-ed25519 AAAA")
    path = tmp_path / "checkpoint.key"
    path.write_text("x")
    with pytest.raises(KeysUnreadable):
        SigningKeys(tmp_path).current()


def test_a_line_that_a_kill_cut_short_never_counted(tmp_path):
    book = Book(tmp_path)
    book.append(b"one")
    with (tmp_path / "checkpoints.jsonl").open("ab") as file:
        file.write(b"tw")

    assert book.lines() == [b"one"]
    book.append(b"three")
    assert book.lines() == [b"one", b"three"]


def test_the_copy_follows_and_is_never_shortened(tmp_path):
    book = Book(tmp_path / "here", tmp_path / "there")
    book.append(b"one")
    book.mirror()
    book.append(b"two")
    book.mirror()
    (tmp_path / "here" / "checkpoints.jsonl").unlink()

    assert book.lines() == [b"one", b"two"]
    book.append(b"three")
    book.mirror()
    assert (tmp_path / "there" / "checkpoints.jsonl").read_bytes() == b"one\ntwo\nthree\n"


def test_ids_of_keys_are_stable():
    assert key_id(Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()) == (
        "139e3940e64b5491"
    )
