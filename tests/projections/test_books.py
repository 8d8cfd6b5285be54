"""Months are closed, invoices derived again to the byte, and what is found later corrected."""

import hashlib
import os
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from engine.domain.billing.periods import invoice_id_of
from engine.log.checkpoint import Held
from projections.accounting import Accounting, OfInvoice, OfMonth
from projections.answers import Position
from projections.archive import Archive, Window
from projections.books import opened
from projections.budgets import due
from projections.history import History
from projections.models import decode_stored, last_ordinal
from projections.server_hours import Asked, server_hours
from schemas.billing import (
    AssignProject,
    ClosePeriod,
    CorrectLine,
    CreateBudget,
    IssueInvoice,
    SetBilling,
    UpdateCustomer,
    VoidInvoice,
)
from schemas.errors import Conflict, InvalidInput, NotFound
from schemas.units import DAY, HOUR, MINUTE
from tests.engine.world import SYSTEM
from tests.projections.company import END, FEBRUARY, MARCH, START, Company, archived, books, prices
from tests.projections.story import reading

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def company():
    found = Company()
    with found.books:
        yield found


@pytest.fixture
def archive(company, tmp_path):
    return archived(company, tmp_path)


def document(company, archive, month, customer):
    return books(archive, company).invoice(invoice_id_of(month, customer)).document


def by_hand_digest(rows):
    """The SHA-256 over each row as canonical JSON and a newline."""
    text = b"".join(msgspec.json.encode(row, order="sorted") + b"\n" for row in rows)
    return hashlib.sha256(text).hexdigest()


def told(drawn):
    return msgspec.json.encode((drawn.document, list(drawn.numbered())))


def by_sku(drawn):
    return {
        (line.sku or line.category, line.description): Decimal(line.amount)
        for line in drawn.document.lines
    }


def test_a_month_comes_to_what_a_person_reckons(company, archive):
    """Acme ran 4 vCPUs from the 1st, 9:00, to the 20th, 12:00: 459 hours."""
    company.close(archive, FEBRUARY)
    drawn = books(archive, company).invoice(invoice_id_of(FEBRUARY, company.acme))
    lines = {line.sku or line.category: line for line in drawn.document.lines}

    assert Decimal(lines["cpu"].quantity) - 4 * 459 < Decimal("0.0001")
    assert Decimal(lines["cpu"].amount).quantize(Decimal("0.01")) == Decimal("36.72")
    # 1836 GiB-Hours: 500 at 0.0034, the rest at 0.0029.
    assert Decimal(lines["memory"].amount).quantize(Decimal("0.01")) == Decimal("5.57")
    # 18,360 GiB-Hours of disk, of which 1,000 are included.
    assert Decimal(lines["disk"].amount).quantize(Decimal("0.01")) == Decimal("2.14")
    assert lines["Credit"].amount == "-1.50"
    net = Decimal(drawn.document.net)
    assert Decimal(drawn.document.tax) == ((net - Decimal("1.50")) * 19 / 100).quantize(
        Decimal("0.000001")
    )
    assert drawn.document.total == str(
        (net - Decimal("1.50") + Decimal(drawn.document.tax)).quantize(Decimal("0.01"))
    )


def test_rows_lines_and_totals_agree_for_every_invoice(company, archive):
    company.close(archive, FEBRUARY)
    company.tell_late()
    company.close(archive, MARCH)
    ledger = books(archive, company)

    for month in (FEBRUARY, MARCH):
        for customer, drawn in ledger.month(month).drawn_up.items():
            of = drawn.document
            rows = sum((Decimal(row.amount) for row in drawn.rows), Decimal(0))
            assert rows == sum(Decimal(line.amount) for line in of.lines) == Decimal(of.total)
            assert of.rows_digest == drawn.digest()
            recorded = company.cell.state.invoices[invoice_id_of(month, customer)]
            assert (recorded.total, recorded.net, recorded.tax) == (of.total, of.net, of.tax)
            for row in drawn.rows:
                negative = row.base_quantity.startswith("-") or row.amount.startswith("-")
                assert not negative or row.charge_class or row.category in {"Credit", "Adjustment"}


def test_usage_is_cut_at_prices_and_midnights_of_a_leap_month(company, archive):
    company.close(archive, FEBRUARY)
    drawn = books(archive, company).invoice(invoice_id_of(FEBRUARY, company.bolt))
    rows = [row for row in drawn.rows if row.sku == "cpu-small"]

    assert len(rows) == 27  # from the 4th to the 29th, and a price change in the midst of the 15th
    assert {row.end - row.start for row in rows} >= {DAY, 6 * HOUR, 18 * HOUR}
    assert rows[-1].start == START + 28 * DAY
    assert rows[-1].end == END
    assert {(row.price, row.price_list_version) for row in rows} == {("0.0123", 1), ("0.0150", 2)}
    assert all(row.discount == "12.5" for row in rows)
    assert all(Decimal(row.amount) < Decimal(row.list_amount) for row in rows)


def test_a_minimum_is_a_line_of_its_own(company, archive):
    company.close(archive, FEBRUARY)
    lines = document(company, archive, FEBRUARY, company.crumb).lines

    (minimum,) = [line for line in lines if line.category == "Adjustment" and line.sku]
    usage = next(line for line in lines if line.category == "Usage")
    assert Decimal(usage.amount) + Decimal(minimum.amount) == Decimal("0.50")


def test_what_was_issued_comes_out_again_whatever_happens_later(company, archive):
    company.close(archive, FEBRUARY)
    company.issue(FEBRUARY)
    before = {
        customer: told(drawn)
        for customer, drawn in books(archive, company).month(FEBRUARY).drawn_up.items()
    }

    company.tell_late()
    company.ok(company.admin, prices(cpu="99"))
    company.ok(company.admin, UpdateCustomer(customer_id=company.acme, tax_percent="50"))
    company.close(archive, MARCH)
    later = books(archive, company)

    again = later.month(FEBRUARY).drawn_up
    assert {c: told(drawn) for c, drawn in again.items()} == before
    for month in (FEBRUARY, MARCH):
        closing = later.past().closings[month]
        assert later.differences(month, archive.chain_hash_at(closing.ordinal)) == []


def test_a_late_report_is_corrected_in_the_next_month(company, archive):
    company.close(archive, FEBRUARY)
    billed = document(company, archive, FEBRUARY, company.bolt)
    company.tell_late()
    company.close(archive, MARCH)
    ledger = books(archive, company)
    drawn = ledger.invoice(invoice_id_of(MARCH, company.bolt))

    found = [row for row in drawn.rows if row.charge_class == "Correction"]
    assert {row.of_invoice for row in found} == {billed.invoice_id}
    assert {row.end for row in found if row.sku == "cpu"} == {END, company.stopped_at}
    assert all(START <= row.start < row.end <= END for row in found)
    for sku, halves in (("cpu", 2), ("memory", 2)):  # half an hour less, of four each
        own = [row for row in found if row.sku == sku]
        assert [row.amount.startswith("-") for row in own] == [True, False]
        assert sum(Decimal(row.quantity) for row in own) == -halves
    assert "disk" not in {row.sku for row in found}  # a stopped server keeps its disk
    crumb = ledger.month(MARCH).drawn_up[company.crumb]
    assert not any(row.charge_class for row in crumb.rows)


def test_a_dispute_is_settled_by_a_reversal_and_a_corrected_row(company, archive):
    company.close(archive, FEBRUARY)
    company.issue(FEBRUARY)
    invoice = document(company, archive, FEBRUARY, company.acme)
    line = next(line for line in invoice.lines if line.sku == "cpu")

    def settle(amount, number=line.line):
        action = CorrectLine(
            invoice_id=invoice.invoice_id, line=number, amount=amount, reason="half of it"
        )
        company.ok(company.admin, action)

    settle("18.36")
    settle("10.00")
    settle("1.00", number=99)
    company.close(archive, MARCH)
    settle("0")
    company.close(archive, "2024-04")
    ledger = books(archive, company)

    march = ledger.invoice(invoice_id_of(MARCH, company.acme))
    april = ledger.invoice(invoice_id_of("2024-04", company.acme))
    amounts = [row.amount for row in march.rows if row.charge_class]
    assert amounts == [f"-{line.amount}", "18.36", "-18.36", "10.00"]
    assert [row.amount for row in april.rows if row.charge_class] == ["-10.00", "0"]
    assert all(row.of_invoice == invoice.invoice_id for row in march.rows if row.charge_class)
    assert "has no line 99" in march.document.problems[0]
    assert Decimal(march.document.total) < 0  # a credit note: nothing is taken from credits
    assert march.document.credits == {}


def test_a_month_is_closed_in_its_turn_and_time_and_by_the_archiver_alone(company, archive):
    with opened(archive, END + DAY) as early:
        closing = early.closing(FEBRUARY)
    company.at(END + DAY)
    assert "late reports" in company.refused(SYSTEM, ClosePeriod(closing=closing)).reason
    company.at(END + 2 * DAY)
    assert company.refused(company.admin, ClosePeriod(closing=closing)).status == 403
    with opened(archive, company.now) as now:
        closing = now.closing(FEBRUARY)

    def refused(**fields):
        changed = msgspec.structs.replace(closing, **fields)
        return company.refused(SYSTEM, ClosePeriod(closing=changed)).reason

    first = closing.invoices[0]
    forged = msgspec.structs.replace(first, total="0.01")
    assert "do not add up" in refused(invoices=(forged,))
    assert "one invoice a month" in refused(invoices=(first, first))
    dollars = msgspec.structs.replace(first, currency="USD")
    assert "pays in EUR" in refused(invoices=(dollars,))
    assert "not those in force" in refused(price_list_versions={"standard": 1})
    assert "is not between" in refused(ordinal=closing.ordinal + 10**6)
    terms = refused(terms_digest="0" * 64)
    assert "have changed since" in terms
    company.ok(SYSTEM, ClosePeriod(closing=closing))
    assert "is closed" in company.refused(SYSTEM, ClosePeriod(closing=closing)).reason
    assert "in order: the next is 2024-03" in refused(period="2024-05")


def test_nothing_may_change_what_a_closed_month_costs(company, archive):
    company.close(archive, FEBRUARY)

    back = prices(cpu="1", valid_from=END - 1)
    assert "is closed" in company.refused(company.admin, back).reason
    terms = UpdateCustomer(customer_id=company.acme, tax_percent="0", valid_from=START)
    assert "is closed" in company.refused(company.admin, terms).reason
    assert company.ok(company.admin, prices(cpu="1", valid_from=END + 3 * DAY))


def test_a_forged_closing_is_found(company, archive):
    """Whoever could write into the log as the archiver does could not hide what a month came to."""
    company.at(END + 2 * DAY)
    with opened(archive, company.now) as now:
        closing = now.closing(FEBRUARY)
    cheap = msgspec.structs.replace(closing.invoices[0], net="1", tax="0", total="1.00", credits={})
    forged = msgspec.structs.replace(closing, invoices=(cheap, *closing.invoices[1:]))
    company.ok(SYSTEM, ClosePeriod(closing=forged))

    ledger = books(archive, company)
    found = ledger.differences(FEBRUARY, archive.chain_hash_at(closing.ordinal))
    assert {d.what.rpartition(" ")[2] for d in found} >= {"net", "total"}


def flip(commits):
    seq, data = commits[20]
    at = data.index(b'"user_id":"') + 12
    commits[20] = (seq, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def drop(commits):
    del commits[20]


def swap(commits):
    (one, first), (two, second) = commits[20:22]
    commits[20:22] = [(one, second), (two, first)]


def insert(commits):
    commits.insert(20, commits[19])


def cut(commits):
    del commits[-3:]


@pytest.mark.parametrize("tamper", [flip, drop, swap, insert, cut])
def test_no_month_is_closed_on_a_log_that_was_tampered_with(company, tmp_path, tamper):
    reader = reading(company, tmp_path / "r.db")
    archive = Archive(History(tmp_path / "history"), company.read, reader)
    company.at(END + 2 * DAY)
    accounting = Accounting(archive, reader, Held, lambda: company.now)
    assert accounting.closing(FEBRUARY).period == FEBRUARY

    tamper(company.commits)

    with pytest.raises(Conflict, match="not what was written"):
        accounting.closing(FEBRUARY)
    with pytest.raises(Conflict, match="not what was written"):
        accounting.verify(OfMonth(month=FEBRUARY))


def test_a_line_is_explained_down_to_whoever_asked(company, tmp_path):
    company.close(archived(company, tmp_path), FEBRUARY)
    reader = reading(company, tmp_path / "later.db")
    archive = Archive(History(tmp_path / "none"), company.read, reader)
    accounting = Accounting(archive, reader, Held, lambda: company.now)
    invoice = invoice_id_of(FEBRUARY, company.acme)
    line = next(
        line.line
        for line in accounting.invoice(OfInvoice(invoice=invoice)).invoice.lines
        if line.sku == "cpu"
    )

    told = accounting.explain(OfInvoice(invoice=invoice, line=line))

    (held,) = told.held
    assert (held.resource_id, held.begun_by.action, held.ended_by.action) == (
        company.web_1,
        "CreateServer",
        "DeleteServer",
    )
    assert held.ended_by.user_id == company.actors["acme"].user_id
    assert told.rows_total == 21  # twenty days, one of them with two prices
    verified = accounting.verify(OfMonth(month=FEBRUARY))
    assert (verified.verified, verified.differences) == (True, ())
    for asked in (OfInvoice(invoice="2024-02.none"), OfInvoice(invoice="nonsense")):
        with pytest.raises(NotFound):
            accounting.invoice(asked)
    with pytest.raises(InvalidInput, match="not begun"):
        accounting.month(OfMonth(month="2100-01"))


def test_a_past_is_what_was_answered_then(company, tmp_path):
    """Also once the month is closed, its terms and prices are others and more was found of it."""
    reader = reading(company, tmp_path / "r.db")
    archive = Archive(History(tmp_path / "history"), company.read, reader)
    accounting = Accounting(archive, reader, Held, lambda: company.now)
    acme = company.actors["acme"].project_id
    invoice = invoice_id_of(FEBRUARY, company.acme)
    recorded = []

    def answers(as_of=None):
        window = Window(project=acme, as_of=as_of)
        return (
            accounting.month(OfMonth(month=FEBRUARY, as_of=as_of)),
            accounting.invoice(OfInvoice(invoice=invoice, as_of=as_of)),
            accounting.forecast(OfMonth(month=FEBRUARY, as_of=as_of)),
            accounting.explain(OfInvoice(invoice=invoice, line=1, as_of=as_of)),
            archive.usage(window, company.now),
            archive.bill(window, company.now),
            server_hours(archive.holdings, Asked(start=0, end=END + 9 * DAY, as_of=as_of)),
        )

    def record():
        seq, data = company.commits[-1]
        last = decode_stored(data)
        end = Position(ordinal=last_ordinal(last), seq=seq, hash=last.hash, at=company.now)
        recorded.append((end, answers()))

    record()
    company.at(END - 5 * MINUTE)
    record()
    company.tell_late()
    other = prices(cpu="9", name="other", valid_from=None)
    company.ok(company.admin, other)
    company.ok(company.admin, UpdateCustomer(customer_id=company.acme, price_list="other"))
    record()
    company.close(archive, FEBRUARY)
    record()
    company.issue(FEBRUARY)
    company.at(END + 20 * DAY)
    company.delete(company.actors["bolt-web"], company.web_2)

    assert [months.closed for _, (months, *_) in recorded] == [False, False, False, True]
    bills = [(end.at, bill.bills[0].total) for end, (*_, bill, _) in recorded]
    assert len(set(bills)) == len(recorded)
    for end, then in recorded:
        assert answers(end) == then
    assert answers() != recorded[-1][1]


def test_numbers_have_no_gaps_and_a_voided_invoice_gives_its_credit_back(company, archive):
    company.close(archive, FEBRUARY)
    company.issue(FEBRUARY)
    state = company.cell.state
    acme = invoice_id_of(FEBRUARY, company.acme)
    (credit,) = state.credits.values()
    assert credit.remaining == "0.00"

    company.ok(company.admin, VoidInvoice(invoice_id=acme, reason="to another address"))
    company.refused(company.admin, IssueInvoice(invoice_id=acme))
    company.close(archive, MARCH)
    company.issue(MARCH)
    company.issue(MARCH)

    (credit,) = state.credits.values()
    assert credit.remaining == "1.50"
    numbers = sorted(i.number for i in state.invoices.values() if i.number)
    assert numbers == [f"INV-2024-{n:06d}" for n in range(1, len(numbers) + 1)]
    assert state.invoices_issued == len(numbers) == len(state.invoices)
    assert state.invoices[acme].status == "voided"


def test_invoices_are_issued_together_if_they_are_of_one_month(company, archive):
    company.close(archive, FEBRUARY)
    company.close(archive, MARCH)
    state = company.cell.state
    first, *others = [i for i, found in state.invoices.items() if found.period == FEBRUARY]
    (march, *_) = [i for i, found in state.invoices.items() if found.period == MARCH]
    company.ok(company.admin, IssueInvoice(invoice_id=others[0]))

    for wrong in (march, "2024-02.nobody"):
        company.refused(company.admin, IssueInvoice(invoice_id=first, also=(wrong,)))
    told = company.ok(company.admin, IssueInvoice(invoice_id=first, also=(*others, first)))
    again = company.ok(company.admin, IssueInvoice(invoice_id=first, also=tuple(others)))

    numbers = told["numbers"]
    assert numbers[others[0]] == "INV-2024-000001", "it keeps what it has"
    assert sorted(numbers.values()) == [f"INV-2024-{n + 1:06d}" for n in range(len(others) + 1)]
    assert again == told
    assert state.invoices_issued == len(others) + 1
    company.ok(company.admin, VoidInvoice(invoice_id=others[0], reason="a test"))
    company.refused(company.admin, IssueInvoice(invoice_id=first, also=(others[0],)))


def test_a_project_that_changes_hands_is_billed_to_each_for_its_part(company, archive):
    company.at(END + 10 * DAY)
    web = company.actors["bolt-web"].project_id
    company.ok(company.admin, AssignProject(project_id=web, customer_id=company.crumb))
    moved = company.now
    company.close(archive, FEBRUARY)
    company.close(archive, MARCH)
    ledger = books(archive, company)

    def span(customer):
        rows = ledger.invoice(invoice_id_of(MARCH, customer)).rows
        own = [row for row in rows if row.sku == "cpu-small"]
        return min(row.start for row in own), max(row.end for row in own)

    assert span(company.bolt) == (END, moved)
    assert span(company.crumb) == (moved, END + 31 * DAY)


def test_what_nobody_pays_for_is_named(company, archive):
    company.server(company.admin, name="own", flavor_id=company.small)
    company.at(END)

    found = books(archive, company).month(FEBRUARY)

    assert company.admin.project_id in {project for project, _ in found.unassigned}


def test_what_is_kept_gives_what_a_fold_of_the_whole_log_gives(company, tmp_path):
    """Months, open and closed, from runs on disk and from what is only in memory yet."""
    read_model = reading(company, tmp_path / "r.db")
    archive = Archive(
        History(tmp_path / "history"), company.read, read_model, tmp_path / "metering"
    )

    def agree(*months):
        with opened(archive, company.now) as kept, opened(archive, company.now, anew=True) as anew:
            for month in months:
                found, folded = kept.month(month), anew.month(month)
                assert found.documents == folded.documents
                assert found.unassigned == folded.unassigned
                for customer, drawn in found.drawn_up.items():
                    other = folded.drawn_up[customer]
                    assert list(drawn.numbered()) == list(other.numbered())
                    assert drawn.digest() == other.digest() == by_hand_digest(other.rows)

    agree(FEBRUARY)
    company.close(archive, FEBRUARY)
    archive.holdings.keep()
    agree(FEBRUARY, MARCH)
    company.tell_late()
    agree(FEBRUARY, MARCH)
    company.close(archive, MARCH)
    archive.holdings.keep()
    company.at(company.now + 3 * DAY)
    agree(FEBRUARY, MARCH, "2024-04")


def test_golden_invoices_come_out_the_same_for_ever(company, archive):
    """If this fails, invoices that were sent can no longer be derived again."""
    company.close(archive, FEBRUARY)
    company.issue(FEBRUARY)
    company.tell_late()
    company.close(archive, MARCH)
    ledger = books(archive, company)
    drawn = [d for month in (FEBRUARY, MARCH) for d in ledger.month(month).drawn_up.values()]
    golden = GOLDEN / "invoices.json"

    found = msgspec.json.format(
        msgspec.json.encode([d.document for d in drawn], order="sorted"), indent=1
    )

    if os.environ.get("CUMULOG_GOLDEN") == "write" and not golden.exists():
        golden.write_bytes(found + b"\n")
    assert found + b"\n" == golden.read_bytes()


def test_other_prices_make_winners_and_losers(company, archive):
    """The large flavor dearer, the small one free."""
    rules = prices().rules
    changed = {"cpu-small": "0", "cpu": "0.04"}
    draft = prices()
    draft = msgspec.structs.replace(
        draft,
        rules=tuple(
            msgspec.structs.replace(rule, price=changed.get(rule.sku, rule.price)) for rule in rules
        ),
    )
    company.close(archive, FEBRUARY)
    ledger = books(archive, company)

    same = ledger.what_if(FEBRUARY, company.cell.state.price_lists["standard"][0])
    told = ledger.what_if(FEBRUARY, draft)

    by_customer = {each.customer_id: each for each in told.customers}
    acme = by_customer[company.acme]
    assert Decimal(acme.difference) == Decimal("36.72")  # its CPUs twice over
    assert Decimal(by_customer[company.crumb].difference) == 0
    assert (told.winners, told.losers, told.left_out) == (0, 2, ())
    assert acme.before == document(company, archive, FEBRUARY, company.acme).net
    assert Decimal(same.after) < Decimal(same.before)  # without the change of the 15th
    assert told.customers[-1].customer_id in {company.acme, company.bolt}
    half = msgspec.structs.replace(draft, valid_from=END)
    assert ledger.what_if(FEBRUARY, half).after == told.before
    with pytest.raises(InvalidInput, match="no rule matches"):
        ledger.what_if(FEBRUARY, msgspec.structs.replace(draft, rules=draft.rules[:2]))
    dollars = ledger.what_if(FEBRUARY, msgspec.structs.replace(draft, currency="USD"))
    assert len(dollars.left_out) == 3


def test_a_forecast_is_what_the_month_comes_to_if_nothing_changes(company, archive):
    company.close(archive, FEBRUARY)
    company.tell_late()
    company.at(END + 6 * DAY)

    foretold = books(archive, company).forecast(MARCH)

    company.close(archive, MARCH)
    march = books(archive, company).month(MARCH)
    assert [each.customer_id for each in foretold] == sorted({company.bolt, company.crumb})
    for each in foretold:
        customer = each.customer_id
        own = [row for row in march.drawn_up[customer].rows if not row.charge_class]
        used = sum(Decimal(row.amount) for row in own if row.meter)
        assert used == Decimal(each.forecast) >= Decimal(each.so_far) > 0


def test_a_budget_is_watched_as_a_month_goes_by(company, archive):
    company.ok(company.admin, SetBilling(grace_hours=0))
    for name, project in (("all", ""), ("data", company.actors["bolt-data"].project_id)):
        whose = {"customer_id": company.bolt, "project_id": project}
        create = CreateBudget(name=name, amount="20", thresholds=(20, 50), **whose)
        company.ok(company.admin, create)

    def looked():
        found = due(archive, company.now)
        for action in found:
            company.ok(SYSTEM, action)
        return [(action.threshold, action.month) for action in found]

    company.at(END + HOUR)
    assert looked() == []
    company.at(END + 4 * DAY)  # the database still runs, for all that anybody knows
    assert looked() == [(20, MARCH)] * 2
    assert looked() == []
    company.tell_late()
    company.at(END + 25 * DAY)
    assert looked() == [(50, MARCH)]  # of all; what the database was thought to use is gone
    for budget in company.cell.state.budgets.values():
        assert budget.month == MARCH
