"""The published validator of FOCUS takes our exports, and its script says so if it does not."""

import subprocess
from pathlib import Path

import pytest

from projections.exports import Exports, OfExport
from projections.handover import Handover
from schemas.billing import CorrectLine, VoidInvoice
from tests.projections.company import FEBRUARY, MARCH, Company, archived
from tests.projections.story import reading

SCRIPT = Path(__file__).parents[2] / "script" / "focus-validator"


@pytest.fixture
def export(tmp_path, monkeypatch):
    """A month with discounts, tiers, taxes, corrections of two kinds, and a voided invoice."""
    monkeypatch.setattr("projections.exports.INLINE_BYTES", 2**30)
    company = Company()
    archive = archived(company, tmp_path / "history")
    company.close(archive, FEBRUARY)
    company.issue(FEBRUARY)
    company.tell_late()
    invoice = f"{FEBRUARY}.{company.crumb}"
    dispute = CorrectLine(invoice_id=invoice, line=1, amount="0.10", reason="=cmd|' /C calc'!A0")
    company.ok(company.admin, dispute)
    company.close(archive, MARCH)
    void = VoidInvoice(invoice_id=f"{MARCH}.{company.bolt}", reason="sent to somebody else")
    company.ok(company.admin, void)
    model = tmp_path / "e.db"
    reader, handover = reading(company, model), Handover(tmp_path / "files")
    exports = Exports(archive, reader, model, handover, lambda: company.now)
    return exports.exported(OfExport(month=MARCH, version="1.2")).content


@pytest.mark.slow
def test_the_published_validator_takes_an_export_and_refuses_a_worse_one(export, tmp_path):
    good, worse = tmp_path / "good.csv", tmp_path / "worse.csv"
    good.write_bytes(export)
    head, first, rest = export.split(b"\r\n", 2)
    amount, comma, others = first.partition(b",")
    worse.write_bytes(b"\r\n".join((head, comma + others, rest)))  # it costs nobody knows what

    def run(*asked):
        done = subprocess.run(
            [SCRIPT, *asked], check=False, capture_output=True, text=True, timeout=250
        )
        if done.returncode == 3:
            pytest.skip(done.stderr)
        return done

    taken, refused = run(good), run(worse, "--filter-rules", "BilledCost")

    assert taken.returncode == 0, taken.stdout
    assert "Pass: " in taken.stdout
    assert amount
    assert refused.returncode == 1, refused.stdout
    assert "BilledCost-C-003-M" in refused.stdout.splitlines()[-1]
