"""FOCUS: what the specification wants of each column, and not a cent more or less than is owed."""

import csv
import io
import re
from decimal import Decimal

import pyarrow.parquet as pq
import pytest

from projections import focus
from projections.focus import Issued, Names
from projections.ledger import terms_of
from schemas.billing import BillingSettings
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
    yield [
        Issued(
            drawn=drawn,
            customer=terms_of(ledger.past(), customer, month),
            invoice=company.cell.state.invoices[drawn.document.invoice_id],
        )
        for month in (FEBRUARY, MARCH)
        for customer, drawn in ledger.month(month).drawn_up.items()
    ]
    while story.OPENED:
        story.OPENED.pop().close()


SETTINGS = BillingSettings(issuer_name="Cloud Ltd")
NAMES = Names(projects={}, resources={})


def usage(issued, version="1.4"):
    return focus.cost_and_usage(
        issued, SETTINGS, NAMES, "RegionOne", "c" * 64, updated=0, version=version
    )


def read(export):
    return list(csv.DictReader(io.StringIO(focus.as_csv(export).decode())))


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
        each.invoice.number or each.invoice.invoice_id: Decimal(each.drawn.document.total)
        for each in issued
    }

    for export in (usage(issued), focus.invoice_detail(issued, SETTINGS, updated=0)):
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

    table = pq.read_table(io.BytesIO(focus.as_parquet(export)))

    assert str(table.schema.field("BilledCost").type) == "decimal128(38, 12)"
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
    export = focus.invoice_detail(issued, SETTINGS, updated=0)

    assert {name for name, _ in export.columns} >= DETAIL
    statuses = {record["InvoiceIssueStatus"] for record in export.records}
    assert statuses == {"Issued", "Open"}
    periods = focus.billing_period([(FEBRUARY, True), (MARCH, False)], SETTINGS, updated=0)
    assert [r["BillingPeriodStatus"] for r in periods.records] == ["Closed", "Open"]


def test_version_1_2_names_its_providers_otherwise(issued):
    export = usage(issued, "1.2")
    names = {name for name, _ in export.columns}

    assert {"ProviderName", "PublisherName", "x_InvoiceDetailId"} <= names
    assert not names & {"HostProviderName", "ServiceProviderName", "InvoiceDetailId"}
    told = focus.metadata(export, "Cloud Ltd")
    assert told["Schema"]["FocusVersion"] == "1.2"
    assert len(told["Schema"]["ColumnDefinition"]) == len(names)
