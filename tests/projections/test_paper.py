"""An invoice on paper: whom it is from and to, in the customer's time, and nothing that escapes."""

import io
import unicodedata
from decimal import Decimal

import pypdf
import pytest
from msgspec.structs import replace

from projections.paper import as_html, paper
from projections.pdf import as_pdf
from schemas.billing import BillingSettings, Customer
from tests.projections.company import FEBRUARY, MARCH, Company, archived, books

SETTINGS = BillingSettings(
    issuer_name="Cloud <Ltd>",
    issuer_address="Main Street 1\nDublin",
    issuer_tax_id="IE123",
    payment_terms="Within 14 days, net.",
)


@pytest.fixture(scope="module")
def company(tmp_path_factory):
    company = Company()
    archive = archived(company, tmp_path_factory.mktemp("paper"))
    company.close(archive, FEBRUARY)
    company.issue(FEBRUARY)
    company.close(archive, MARCH)
    ledger = books(archive, company)
    company.documents = {
        (month, customer): drawn.document
        for month in (FEBRUARY, MARCH)
        for customer, drawn in ledger.month(month).drawn_up.items()
    }
    company.books.close()
    return company


def printed(company, month, customer="acme", *, voided=False, **changes):
    identity = getattr(company, customer)
    document = company.documents[month, identity]
    terms = replace(company.cell.state.customers[identity][-1], **changes)
    invoice = company.cell.state.invoices[document.invoice_id]
    if voided:
        invoice = replace(invoice, status="voided", void_reason="sent to somebody else")
    projects = {company.actors["acme"].project_id: "acme <prod>"}
    return paper(document, terms, SETTINGS, invoice, projects)


def test_a_page_says_who_owes_whom_what_and_why(company):
    told = printed(company, FEBRUARY, tax_id="DE999", reference="PO-7")
    page = as_html(told).decode()

    for said in ("Invoice INV-2024-", "Cloud &lt;Ltd&gt;", "IE123", "Acme", "10115 Berlin",
                 "DE999", "PO-7", "VAT 19 %", "acme &lt;prod&gt;", "1836", "36.720000",
                 "Credit: an outage", "-1.50", "51.09", "Payable until", "SHA-256"):  # fmt: skip
        assert said in page, said
    assert "<prod>" not in page


def test_times_are_the_customers_whose_clocks_change(company):
    """Of a month that begins in winter and ends in summer, each end has its own offset."""
    told = dict(printed(company, MARCH, customer="bolt", zone="Europe/Berlin").facts)
    utc = dict(printed(company, MARCH, customer="bolt").facts)

    assert told["Billing period"] == "2024-03-01 01:00 CET to 2024-04-01 02:00 CEST"
    assert utc["Billing period"] == "2024-03-01 00:00 UTC to 2024-04-01 00:00 UTC"


def test_a_pdf_is_the_same_to_the_byte(company):
    told = printed(company, FEBRUARY)

    first, again = as_pdf(told), as_pdf(told)

    assert first.startswith(b"%PDF-")
    assert first == again
    assert b"%%EOF" in first[-16:]
    assert b"Page 1 of 1" not in first, "it is compressed, so look into it"
    assert "Page 1 of 1" in text_of(first)


def text_of(pdf):
    """Return all that a reader can copy from the pages."""
    pages = pypdf.PdfReader(io.BytesIO(pdf)).pages
    return "\n".join(page.extract_text() for page in pages)


def test_a_pdf_has_every_script_and_no_markup_of_others(company):
    names = "Ünïted Ελλάς Россия 株式会社 プロ 한국 <b>x</b> & <img src=x>"
    told = printed(company, FEBRUARY, name=names, reference="\u202eevil\x00\x1b[31m", address="🚀")
    text = " ".join(text_of(as_pdf(told)).split())

    for said in ("Ünïted", "Ελλάς", "Россия", "株式会社", "プロ", "한국", "<b>x</b> & <img src=x>"):
        assert said in text, said
    assert "\u202e" not in text
    assert "evil[31m" in text
    assert "\ufffd" in text  # what no font has is not left out
    arabic = printed(company, FEBRUARY, name="شركة")
    assert unicodedata.normalize("NFKC", text_of(as_pdf(arabic))).count("ش") == 1


def test_texts_as_long_as_may_be_and_many_lines_have_room(company):
    told = printed(company, FEBRUARY, name="W" * 255, address="\n".join("x" * 2048))
    assert told.customer.count("\n") < 15
    assert told.customer.count("x") == 2048
    lines = [replace(told.lines[0], number=n + 1, what=f"sku-{n}") for n in range(1100)]
    long = replace(told, lines=tuple(lines), issuer="N" * 4096, terms="T" * 255)
    text = text_of(as_pdf(long))

    assert "sku-0" in text
    assert "sku-1099" in text
    assert text.count("To be paid") == 1
    pages = text.count("Page ")
    assert f"Page {pages} of {pages}" in text


def test_sums_say_what_they_are(company):
    told = printed(company, FEBRUARY)
    (at,) = [n for n, line in enumerate(told.lines) if not line.number]
    before = sum(Decimal(line.amount) for line in told.lines[:at])
    after = sum(Decimal(line.amount) for line in told.lines[at + 1 :])

    assert Decimal(told.lines[at].amount) == before
    assert before + after == Decimal(told.total)
    assert [line.number for line in told.lines if line.number] == [*range(1, len(told.lines))]


def test_a_voided_invoice_asks_for_nothing(company):
    told = printed(company, FEBRUARY)
    assert told.total_word == "To be paid"
    voided = printed(company, FEBRUARY, voided=True)

    assert voided.title.endswith("(voided)")
    assert voided.total_word.startswith("Nothing is to be paid")
    assert ("Voided", "sent to somebody else") in voided.facts


def test_currencies_keep_their_own_decimals(company):
    for currency, total in (("JPY", "1200"), ("KWD", "1.234"), ("EUR", "-12.30")):
        document = replace(a_document(company), currency=currency, total=total)
        told = paper(document, a_customer(), SETTINGS, None, {})
        text = text_of(as_pdf(told))
        assert f"Amount ({currency})" in text
        assert total in text
        assert told.title.startswith("Credit note" if total[0] == "-" else "Invoice")


def test_a_correction_names_what_the_customer_has(company):
    document = a_document(company)
    line = replace(document.lines[0], of_invoice="2024-01.x")
    document = replace(document, lines=(line,))

    numbered = paper(document, a_customer(), SETTINGS, None, {}, {"2024-01.x": "INV-7"})

    assert numbered.lines[0].what.endswith(" (invoice INV-7)")


def a_customer():
    return Customer(
        customer_id="c", version=1, name="C", currency="EUR", price_list="standard", valid_from=0
    )


def a_document(company):
    return company.documents[FEBRUARY, company.crumb]
