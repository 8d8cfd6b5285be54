"""Exports as the archiver answers for them: in pieces, of one reading, and nothing that is cut."""

import hashlib

import pytest

from projections import exports
from projections.answers import Position
from projections.exports import Exports, OfExport
from projections.handover import (
    IDLE_IF_FULL_S,
    IDLE_S,
    KEPT_MAX,
    PIECE_BYTES,
    Handover,
    OfPiece,
)
from projections.models import decode_stored, last_ordinal
from projections.timemachine.moments import Moment
from schemas.billing import UpdateCustomer, VoidInvoice
from schemas.errors import InvalidInput, NotFound, Unavailable
from tests.projections.company import FEBRUARY, MARCH, Company, archived
from tests.projections.story import OPENED, reading


@pytest.fixture(scope="module")
def company(tmp_path_factory):
    company = Company()
    company.directory = tmp_path_factory.mktemp("exports")
    company.archive = archived(company, company.directory)
    company.early = end_of(company)
    company.close(company.archive, FEBRUARY)
    company.issue(FEBRUARY)
    yield company
    while OPENED:
        OPENED.pop().close()


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    monkeypatch.setattr(exports, "INLINE_BYTES", 2**30)


def end_of(company):
    seq, data = company.commits[-1]
    last = decode_stored(data)
    return Position(ordinal=last_ordinal(last), seq=seq, hash=last.hash, at=company.now)


def exports_of(company, handover=None):
    model = company.directory / "e.db"
    handover = handover or Handover(company.directory / "files")
    reader = reading(company, model)
    return Exports(company.archive, reader, model, handover, lambda: company.now)


def whole(answer, handover):
    content = answer.content
    while len(content) < answer.bytes:
        piece = handover.piece(OfPiece(file=answer.file, offset=len(content))).content
        assert 0 < len(piece) <= PIECE_BYTES
        content += piece
    return content


def test_a_large_file_comes_in_pieces_and_is_gone_then(company, monkeypatch):
    handover = Handover(company.directory / "files")
    found = exports_of(company, handover)
    small = found.exported(OfExport(month=FEBRUARY))
    monkeypatch.setattr(exports, "INLINE_BYTES", 1000)
    monkeypatch.setattr("projections.handover.PIECE_BYTES", 4096)

    large = found.exported(OfExport(month=FEBRUARY))

    assert (small.file, len(small.content)) == ("", small.bytes)
    assert (len(large.content), large.bytes) == (1000, small.bytes)
    assert whole(large, handover) == small.content
    with pytest.raises(NotFound):
        handover.piece(OfPiece(file=large.file, offset=0))
    assert list((company.directory / "files").iterdir()) == []  # files have no names


def test_files_that_nobody_asks_for_go_and_are_few(tmp_path):
    now = [0.0]
    handover = Handover(tmp_path, lambda: now[0])

    def kept(content):
        with handover.writing() as file:
            file.write(content)
        return handover.keep(file)

    names = [kept(b"x" * (PIECE_BYTES + 1)) for _ in range(KEPT_MAX)]
    with pytest.raises(Unavailable, match="ask again later"), handover.writing():
        pass
    now[0] = IDLE_IF_FULL_S - 1
    assert handover.piece(OfPiece(file=names[0], offset=0)).content == b"x" * PIECE_BYTES
    now[0] = IDLE_IF_FULL_S + 1
    later = kept(b"x")  # there is room for it: one that nobody asks for goes
    with pytest.raises(NotFound):
        handover.piece(OfPiece(file=names[1], offset=0))
    assert handover.piece(OfPiece(file=names[2], offset=0)).content == b"x" * PIECE_BYTES
    assert handover.piece(OfPiece(file=later, offset=0)).content == b"x"
    now[0] = IDLE_S + IDLE_IF_FULL_S - 2
    assert handover.piece(OfPiece(file=names[0], offset=0)).content == b"x" * PIECE_BYTES
    now[0] += IDLE_S - 1

    kept(b"")
    assert handover.piece(OfPiece(file=names[0], offset=PIECE_BYTES)).content == b"x"
    for name in names:
        with pytest.raises(NotFound):
            handover.piece(OfPiece(file=name, offset=0))
    handover.close()


def test_a_disk_that_is_full_is_told(tmp_path):
    handover = Handover(tmp_path / "file")
    (tmp_path / "file").write_text("no directory")

    with pytest.raises(Unavailable, match="cannot be written"), handover.writing():
        pass


def test_metadata_tells_as_much_as_the_file_has(company):
    found = exports_of(company)
    for month in (FEBRUARY, MARCH):
        for dataset in ("cost-and-usage", "invoice-detail", "billing-period"):
            asked = OfExport(month=month, dataset=dataset)
            with_file = found.exported(asked)
            alone = found.exported(OfExport(month=month, dataset=dataset, content=False))

            assert alone.metadata == with_file.metadata
            assert (alone.content, alone.bytes) == (b"", 0)
            rows = with_file.content.count(b"\r\n") - 1
            assert with_file.metadata["DatasetInstance"]["Rows"] == rows
            complete = with_file.metadata["Recency"]["DatasetInstanceComplete"]
            assert complete is (month == FEBRUARY or dataset == "billing-period")


def test_what_nobody_can_know_is_refused(company):
    found = exports_of(company)
    with pytest.raises(NotFound, match="no customer"):
        found.exported(OfExport(month=FEBRUARY, customer="nobody"))
    with pytest.raises(InvalidInput, match="not begun"):
        found.exported(OfExport(month="2031-01", dataset="billing-period"))
    with pytest.raises(InvalidInput, match="alone"):
        found.exported(OfExport(month=FEBRUARY, dataset="invoice-detail", version="1.2"))
    moment = Moment(ordinal=1, at=1, file="/etc/passwd")
    with pytest.raises(InvalidInput, match="no moment"):
        found.exported(OfExport(month=FEBRUARY, as_of=company.early, moment=moment))


def test_an_export_as_of_a_moment_knows_nothing_that_came_later(company):
    found = exports_of(company)
    end = end_of(company)
    asked = OfExport(month=FEBRUARY, dataset="invoice-detail", as_of=end)
    rows = OfExport(month=FEBRUARY, as_of=end)
    before = found.exported(asked), found.exported(rows)
    invoice = next(iter(company.cell.state.invoices))
    company.at(company.now + 1)
    company.ok(company.admin, VoidInvoice(invoice_id=invoice, reason="wrong"))
    company.ok(company.admin, UpdateCustomer(customer_id=company.acme, name="Renamed"))

    found = exports_of(company)
    assert (found.exported(asked), found.exported(rows)) == before
    now = found.exported(OfExport(month=FEBRUARY, dataset="invoice-detail"))
    assert b"Voided: wrong" in now.content
    assert b"Voided" not in before[0].content
    drafts = found.exported(OfExport(month=FEBRUARY, as_of=company.early))
    assert drafts.metadata["Recency"]["DatasetInstanceComplete"] is False
    digests = {hashlib.sha256(each.content).digest() for each in (*before, now, drafts)}
    assert len(digests) == 4
