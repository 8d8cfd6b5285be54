"""An invoice on paper: whom it is from and to, in the customer's time, and nothing that escapes."""

from msgspec.structs import replace

from engine.domain.billing.periods import invoice_id_of
from projections.paper import as_html, as_pdf, paper
from schemas.billing import BillingSettings
from tests.projections.company import FEBRUARY, MARCH, Company, archived, books

SETTINGS = BillingSettings(
    issuer_name="Cloud <Ltd>",
    issuer_address="Main Street 1\nDublin",
    issuer_tax_id="IE123",
    payment_terms="Within 14 days, net.",
)


def printed(tmp_path, month, customer="acme", **changes):
    company = Company()
    archive = archived(company, tmp_path)
    company.close(archive, FEBRUARY)
    company.issue(FEBRUARY)
    company.close(archive, MARCH)
    identity = getattr(company, customer)
    ledger = books(archive, company)
    drawn = ledger.invoice(invoice_id_of(month, identity))
    terms = replace(company.cell.state.customers[identity][-1], **changes)
    invoice = company.cell.state.invoices[drawn.document.invoice_id]
    projects = {company.actors["acme"].project_id: "acme <prod>"}
    return paper(drawn.document, terms, SETTINGS, invoice, projects)


def test_a_page_says_who_owes_whom_what_and_why(tmp_path):
    told = printed(tmp_path, FEBRUARY, tax_id="DE999", reference="PO-7")
    page = as_html(told).decode()

    for said in ("Invoice INV-2024-", "Cloud &lt;Ltd&gt;", "IE123", "Acme", "10115 Berlin",
                 "DE999", "PO-7", "VAT 19 %", "acme &lt;prod&gt;", "1836", "36.720000",
                 "Credit: an outage", "-1.50", "51.09", "Payable until", "SHA-256"):  # fmt: skip
        assert said in page, said
    assert "<prod>" not in page


def test_times_are_the_customers_whose_clocks_change(tmp_path):
    """Of a month that begins in winter and ends in summer, each end has its own offset."""
    told = dict(printed(tmp_path, MARCH, customer="bolt", zone="Europe/Berlin").facts)
    utc = dict(printed(tmp_path / "utc", MARCH, customer="bolt").facts)

    assert told["Billing period"] == "2024-03-01 01:00 CET to 2024-04-01 02:00 CEST"
    assert utc["Billing period"] == "2024-03-01 00:00 UTC to 2024-04-01 00:00 UTC"


def test_a_pdf_is_the_same_to_the_byte(tmp_path):
    told = printed(tmp_path, FEBRUARY)

    first, again = as_pdf(told), as_pdf(told)

    assert first.startswith(b"%PDF-")
    assert first == again
    assert b"%%EOF" in first[-16:]
