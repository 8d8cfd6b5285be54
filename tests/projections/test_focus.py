"""FOCUS: what the specification wants of each column, and not a cent more or less than is owed."""

import csv
import io
import re
from decimal import Decimal

import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from projections import focus
from projections.focus import Issued, Names
from projections.ledger import terms_of
from schemas.billing import BillingSettings
from schemas.errors import InvalidInput
from tests.projections.company import FEBRUARY, MARCH, Company, archived, books

# FOCUS 1.4, Cost and Usage: what must be there, and what may not be null.
MANDATORY = {
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd",
    "ChargePeriodStart", "ContractedCost", "EffectiveCost", "HostProviderName",
    "InvoiceIssuerName", "ListCost", "PricingQuantity", "PricingUnit", "ServiceCategory",
    "ServiceName", "ServiceProviderName",
}  # fmt: skip
NULLABLE = {
    "BillingAccountName", "ChargeClass", "ChargeDescription", "PricingQuantity", "PricingUnit",
}  # fmt: skip
DETAIL = {
    "BilledCost", "BillingAccountId", "BillingCurrency", "BillingPeriodStart", "BillingPeriodEnd",
    "ChargeCategory", "InvoiceId", "InvoiceDetailId", "InvoiceDetailCreated",
    "InvoiceDetailLastUpdated", "InvoiceDetailDescription", "InvoiceDetailGrain",
    "InvoiceIssueDate", "InvoiceIssueStatus", "InvoiceIssuerName", "PaymentCurrency",
    "PaymentDueDate", "PaymentTerms", "ReferenceInvoiceId",
}  # fmt: skip
CATEGORIES = {"Usage", "Purchase", "Tax", "Credit", "Adjustment"}
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{6})?Z")
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


@pytest.fixture(scope="module")
def issued(tmp_path_factory):
    from tests.projections import story

    company = Company()
    archive = archived(company, tmp_path_factory.mktemp("focus"))
    company.close(archive, FEBRUARY)
    company.issue(FEBRUARY)
    company.tell_late()
    company.close(archive, MARCH)
    ledger = books(archive, company)
    found = [
        Issued(
            document=drawn.document,
            customer=terms_of(ledger.past(), customer, month),
            invoice=company.cell.state.invoices[drawn.document.invoice_id],
            rows=tuple((row, line) for line, row in drawn.numbered()),
        )
        for month in (FEBRUARY, MARCH)
        for customer, drawn in ledger.month(month).drawn_up.items()
    ]
    company.books.close()
    yield found
    while story.OPENED:
        story.OPENED.pop().close()


SETTINGS = BillingSettings(issuer_name="Cloud Ltd")


def named(rows):
    return Names(projects={}, resources={})


def usage(issued, version="1.4", names=named, numbered=str):
    export = focus.cost_and_usage(
        issued, SETTINGS, names, numbered, "RegionOne", "c" * 64,
        complete=True, updated=0, version=version,
    )  # fmt: skip
    return replace(export, records=tuple(export.records))


def details(issued, numbered=str):
    return focus.invoice_detail(issued, SETTINGS, numbered, complete=True, updated=0)


def written(export, write=focus.as_csv):
    out = io.BytesIO()
    write(export, out)
    return out.getvalue()


def read(export):
    return list(csv.DictReader(io.StringIO(written(export).decode())))


def of_rows(issued, *rows, **invoice):
    """Return the first invoice with other rows, and itself changed."""
    first = issued[0]
    return replace(
        first,
        document=replace(first.document, rows=len(rows)),
        rows=[(row, 1) for row in rows],
        invoice=replace(first.invoice, **invoice),
    )


def a_row(issued, **fields):
    found = next(row for row, _ in issued[0].rows if row.category == "Usage")
    return replace(found, **fields)


def test_columns_are_there_in_order_and_null_where_they_may_be(issued):
    export = usage(issued)
    names = [name for name, _ in export.columns]
    own = [name for name in names if name.startswith("x_")]

    assert set(names) >= MANDATORY
    assert names == sorted(set(names) - set(own)) + sorted(own)
    for record in export.records:
        assert set(record) == set(names)
        nulls = {name for name in MANDATORY if record[name] is None}
        assert nulls <= NULLABLE
        assert record["ChargeCategory"] in CATEGORIES
        assert record["ChargeClass"] in {None, "Correction"}
        if record["ChargeCategory"] == "Usage":
            assert record["PricingQuantity"] is not None
            assert record["PricingUnit"] is not None
        if record["ChargeCategory"] == "Tax":
            assert record["PricingQuantity"] is None
        assert "" not in record.values()


def test_an_invoice_costs_what_its_rows_and_its_details_add_up_to(issued):
    owed = {
        each.invoice.number or each.invoice.invoice_id: Decimal(each.document.total)
        for each in issued
    }

    for export in (usage(issued), details(issued)):
        sums: dict = {}
        for record in export.records:
            invoice = record["InvoiceId"]
            sums[invoice] = sums.get(invoice, Decimal(0)) + record["BilledCost"]
        assert sums == owed


def test_quantity_times_price_is_the_cost(issued):
    for record in usage(issued).records:
        price, quantity = record["ListUnitPrice"], record["PricingQuantity"]
        if price is None:
            continue
        assert abs(price * quantity - record["ListCost"]) < Decimal("0.000002")
        contracted = record["ContractedUnitPrice"] * quantity
        assert abs(contracted - record["ContractedCost"]) < Decimal("0.000002")


def test_csv_has_times_in_utc_and_numbers_without_frills(issued):
    export = usage(issued)
    kinds = dict(export.columns)

    rows = read(export)

    assert len(rows) == len(export.records) > 300
    for row in rows:
        for name, value in row.items():
            if value and kinds[name] == "DateTime":
                assert TIME.fullmatch(value), (name, value)
            if value and kinds[name] == "Decimal":
                assert NUMBER.fullmatch(value), (name, value)


def test_parquet_has_decimals_times_and_the_metadata(issued):
    export = usage(issued)

    table = pq.read_table(io.BytesIO(written(export, focus.as_parquet)))

    assert str(table.schema.field("BilledCost").type) == "decimal128(38, 12)"
    assert str(table.schema.field("ContractedUnitPrice").type) == "decimal128(38, 20)"
    assert str(table.schema.field("ChargePeriodStart").type) == "timestamp[us, tz=UTC]"
    assert b'"FocusVersion": "1.4"' in table.schema.metadata[b"focus"]
    assert sum(table["BilledCost"].to_pylist()) == sum(r["BilledCost"] for r in export.records)


def test_corrections_keep_their_days_and_have_another_invoice(issued):
    found = [r for r in usage(issued).records if r["ChargeClass"] == "Correction"]

    assert found
    for record in found:
        assert record["InvoiceId"] != record["x_OfInvoiceId"]
        assert record["ChargePeriodStart"] < record["BillingPeriodStart"]


def test_details_say_how_invoices_stand(issued):
    export = details(issued)

    assert {name for name, _ in export.columns} >= DETAIL
    statuses = {record["InvoiceIssueStatus"] for record in export.records}
    assert statuses == {"Issued", "Open"}
    for record in export.records:
        assert (record["InvoiceIssueDate"] is None) == (record["InvoiceIssueStatus"] == "Open")
    periods = focus.billing_period([(FEBRUARY, 1), (MARCH, None)], SETTINGS, updated=0)
    assert [r["BillingPeriodStatus"] for r in periods.records] == ["Closed", "Open"]


def test_version_1_2_names_its_providers_otherwise(issued):
    export = usage(issued, "1.2")
    names = {name for name, _ in export.columns}

    assert {"ProviderName", "PublisherName", "x_InvoiceDetailId"} <= names
    assert not names & {"HostProviderName", "ServiceProviderName", "InvoiceDetailId"}
    told = focus.metadata(export, "Cloud Ltd")
    assert told["Schema"]["FocusVersion"] == "1.2"
    assert len(told["Schema"]["ColumnDefinition"]) == len(names)


def test_what_is_corrected_is_named_as_it_was_issued(issued):
    numbers = {each.invoice.invoice_id: each.invoice.number for each in issued}
    first = {each.invoice.number for each in issued if each.invoice.period == FEBRUARY}

    rows = usage(issued, numbered=numbers.__getitem__).records
    lines = details(issued, numbers.__getitem__).records

    assert {r["x_OfInvoiceId"] for r in rows if r["ChargeClass"]} <= first
    referred = {(r["InvoiceId"], r["ReferenceInvoiceId"]) for r in lines}
    # A line that corrects none refers to its own invoice.
    assert {i for i, of in referred if i != of}
    assert {of for i, of in referred if i != of} <= first
    assert {i for i, of in referred if i == of} >= first


def test_a_voided_invoice_comes_to_nothing(issued):
    first = issued[0]
    assert Decimal(first.document.total)
    voided = replace(first, invoice=replace(first.invoice, status="voided", void_reason="=wrong"))

    for export in (usage([voided]), details([voided])):
        assert sum(record["BilledCost"] for record in export.records) == 0
        assert export.rows == len(export.records)
        ids = [record["InvoiceDetailId"] for record in export.records]
        assert ids[-1] not in ids[:-1]


def test_all_costs_of_a_row_over_the_maximum_are_what_they_are_called(issued):
    capped = a_row(
        issued, model="unit", per=1, quantity="10.000000000000", price="2", discount="25",
        list_amount="20.000000", amount="4.500000",
    )  # fmt: skip
    (record,) = usage([of_rows(issued, capped)]).records

    assert (record["BilledCost"], record["ListCost"]) == (Decimal("4.5"), 20)
    assert record["ContractedCost"] == record["ContractedUnitPrice"] * record["PricingQuantity"]


def test_a_flat_price_that_is_taken_back_is_one_less(issued):
    row = a_row(issued, model="flat", price="5", list_amount="-5.000000", amount="-5.000000")
    (record,) = usage([of_rows(issued, row)]).records

    assert (record["PricingQuantity"], record["PricingUnit"]) == (-1, "Months")


def test_no_digit_is_cut_and_what_has_no_room_is_told(issued):
    fine = a_row(issued, price="0.123456789012", discount="33.333333")
    huge = a_row(issued, quantity="1" + "0" * 26 + ".000000000000")
    kept = pq.read_table(io.BytesIO(written(usage([of_rows(issued, fine)]), focus.as_parquet)))

    exact = Decimal("0.123456789012") * (100 - Decimal("33.333333")) / 100
    assert kept["ContractedUnitPrice"].to_pylist() == [exact]
    with pytest.raises(InvalidInput, match=r"ConsumedQuantity 1000.* more digits"):
        written(usage([of_rows(issued, huge)]), focus.as_parquet)
    assert read(usage([of_rows(issued, huge)]))[0]["ConsumedQuantity"].startswith("1000")


def test_nobodys_name_is_a_formula(issued):
    row = a_row(issued)
    evil = '=HYPERLINK("http://x")\r\n日本,\u202e'

    def names(rows):
        return Names(projects={row.project_id: "@SUM(1)"}, resources={row.resource_id: evil})

    export = usage([of_rows(issued, row)], names=names)
    (told,) = read(export)
    table = pq.read_table(io.BytesIO(written(export, focus.as_parquet)))

    assert (told["SubAccountName"], told["ResourceName"]) == ("'@SUM(1)", f"'{evil}")
    assert table["ResourceName"].to_pylist() == [evil]


def test_prices_of_two_lists_are_never_one(issued):
    one = a_row(issued, price_list="x", price_list_version=1, sku="2-3", tier=0)
    other = a_row(issued, price_list="x-1", price_list_version=2, sku="3", tier=0)
    first, second = usage([of_rows(issued, one, other)]).records

    assert first["SkuPriceId"] != second["SkuPriceId"]


def test_names_are_asked_for_some_rows_at_a_time(issued):
    asked = []
    row = a_row(issued)

    def names(rows):
        asked.append(len(rows))
        return Names(projects={}, resources={})

    many = [row] * (2 * focus.NAMED_AT_ONCE + 1)
    export = focus.cost_and_usage(
        [of_rows(issued, *many)], SETTINGS, names, str, "RegionOne", "c" * 64,
        complete=True, updated=0,
    )  # fmt: skip
    assert (asked, export.rows) == ([], len(many))
    written(export)
    assert asked == [focus.NAMED_AT_ONCE] * 2 + [1]
