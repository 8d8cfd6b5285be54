"""The witness says what was acknowledged last, or nothing; never what was not."""

from engine.log.witness import Seen, Witness


def test_it_remembers_the_last_commit(tmp_path):
    witness = Witness(tmp_path / "run" / "acknowledged")
    assert witness.seen() is None
    witness.note(1_000, 20_000, "a" * 64)
    witness.note(1_001, 20_002, "b" * 64)
    witness.close()

    again = Witness(tmp_path / "run" / "acknowledged")

    assert again.seen() == Seen(sequence=1_001, ordinal=20_002, hash="b" * 64)
    again.close()


def test_what_makes_no_sense_says_nothing(tmp_path):
    path = tmp_path / "acknowledged"
    for content in (b"\0" * 107, b"1 2", b"x y z\n"):
        path.write_bytes(content)
        witness = Witness(path)
        assert witness.seen() is None
        witness.close()
