"""The notary signs only what holds, and proves what it is asked for."""

from itertools import pairwise

import pytest

from engine.log.checkpoint import Book, Loss, sign
from engine.log.commit import ChainBroken, open_commit
from engine.log.export import check_lines, export_lines
from engine.log.proof import check_proof
from engine.log.signing import SigningKeys
from projections import notary as module
from projections.notary import Notary
from schemas.errors import InvalidInput, NotFound
from tests.projections.story import a_small_story
from tests.projections.test_history import Sealed

NOW = 2_000_000_000_000_000


class Office:
    """A notary over a story."""

    def __init__(self, directory):
        self.sealed = Sealed(a_small_story(), directory)
        self.story = self.sealed.story
        self.keys = SigningKeys(directory / "keys")
        self.book = Book(directory / "checkpoints", directory / "copy")
        self.notary = Notary(
            "embedded",
            self.keys,
            self.book,
            lambda after: iter(self.story.read(after)),
            self.sealed.history,
            self.sealed.reader,
        )


@pytest.fixture
def office(tmp_path):
    return Office(tmp_path)


def test_the_end_is_signed_once(office):
    signed = office.notary.sign(NOW)

    assert signed.ordinal == office.sealed.head
    assert signed.hash == open_commit(office.story.commits[-1][1]).hash
    assert office.notary.sign(NOW + 1) == signed
    assert len(office.book.lines()) == 1


def test_it_signs_what_came_since_then_and_never_far_apart(office, monkeypatch):
    monkeypatch.setattr(module, "COMMITS_BETWEEN", 10)
    office.notary.sign(NOW)
    office.story.network(office.story.other, "10.7.0.0/24")
    office.notary.sign(NOW + 5)

    kept = office.notary.held().checkpoints
    assert kept[-1].ordinal == office.sealed.head
    assert all(b.sequence - a.sequence <= 10 for a, b in pairwise(kept))
    report = check_lines(
        export_lines(
            office.story.commits,
            [(seq, line.encode()) for seq, line in office.notary.statements(0, 0).lines],
        ),
        office.keys.public(),
    )
    assert report.checkpoints == len(kept)


def test_a_new_key_signs_the_same_end_again(office):
    first = office.notary.sign(NOW)
    office.keys.rotate()
    second = office.notary.sign(NOW)

    assert first.key != second.key
    assert (first.ordinal, first.hash) == (second.ordinal, second.hash)
    assert len(office.notary.held().checkpoints) == 2


def test_a_log_that_was_cut_or_altered_is_not_signed(office):
    office.notary.sign(NOW)
    whole = office.story.commits[:]
    office.story.commits = whole[:-2]
    with pytest.raises(ChainBroken, match="cut or written anew"):
        office.notary.sign(NOW)
    with pytest.raises(ChainBroken, match="cut or written anew"):
        office.notary.require_contained()
    seq, data = whole[-1]
    office.story.commits = [*whole[:-1], (seq, data.replace(b'"at":1', b'"at":2', 1))]
    with pytest.raises(ChainBroken):
        office.notary.sign(NOW)
    assert len(office.book.lines()) == 1
    verified = office.sealed.archive.verify(office.notary.held)
    assert not verified.intact
    assert verified.ordinal <= office.sealed.head


def test_a_cut_log_is_seen_by_what_left_the_machine(office, tmp_path):
    """Even if the local checkpoints, the read model and history were cut with it."""
    office.notary.sign(NOW)
    office.notary.mirror()
    (tmp_path / "checkpoints" / "checkpoints.jsonl").unlink()
    office.story.commits = office.story.commits[:10]

    with pytest.raises(ChainBroken):
        office.notary.require_contained()


@pytest.mark.parametrize("seal", [False, True])
def test_every_record_can_be_proven(office, seal, monkeypatch):
    monkeypatch.setattr(module, "COMMITS_BETWEEN", 7)
    if seal:
        office.sealed.seal(ordinals_max=20)
    for event in office.sealed.reader.events(limit=1000):
        proof = office.notary.proof(str(event.ordinal), NOW)
        report = check_proof(bytes(proof), office.keys.public())
        assert report.commit_first <= event.ordinal
        assert report.request_id == event.request_id
        assert report.checkpoint >= event.ordinal
    by_id = office.notary.proof(event.request_id, NOW)
    assert check_proof(bytes(by_id), office.keys.public()).request_id == event.request_id


@pytest.mark.parametrize(
    ("of", "error"),
    [("req-none", NotFound), ("999999", NotFound), ("0", InvalidInput), ("x", InvalidInput)],
)
def test_what_is_not_there_cannot_be_proven(office, of, error):
    with pytest.raises(error):
        office.notary.proof(of, NOW)


def test_an_empty_log_has_nothing_to_sign(office):
    office.story.commits = []

    assert office.notary.sign(NOW) is None


def test_statements_come_in_pages(office, monkeypatch):
    monkeypatch.setattr(module, "COMMITS_BETWEEN", 3)
    monkeypatch.setattr(module, "LINES_MAX", 4)
    office.notary.sign(NOW)
    kept = office.notary.held().checkpoints
    seen, after = [], 0
    while True:
        page = office.notary.statements(after, 0)
        seen += page.lines
        after = kept[len(seen) - 1].ordinal
        if not page.more:
            break

    assert [seq for seq, _ in seen] == [said.sequence for said in kept]
    through = kept[2].sequence
    assert len(office.notary.statements(0, through).lines) == 3


def test_an_accepted_loss_is_told_by_verification(office):
    signed = office.notary.sign(NOW)
    key_id, key = office.keys.current()
    seq, data = office.story.commits[-3]
    sealed = open_commit(data)
    following = open_commit(office.story.commits[-2][1]).first
    office.story.commits = office.story.commits[:-2]
    loss = Loss(
        at=NOW + 1,
        cell="embedded",
        hash=sealed.hash,
        key=key_id,
        ordinal=following - 1,
        sequence=seq,
        lost=signed.ordinal,
    )
    office.book.append(sign(loss, key))

    assert office.notary.held().checkpoints == ()
    assert office.notary.sign(NOW + 2).ordinal == following - 1
    office.notary.require_contained()
