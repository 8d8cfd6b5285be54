"""FOCUS: invoices as the FinOps Open Cost and Usage Specification has them. Pure.

Version 1.4 (Cost and Usage, Invoice Detail, Billing Period), and of Cost and Usage also 1.2, which
names its providers otherwise. Columns are in alphabetical order, ours last (``x_``). Invariant: the
``BilledCost`` of an ``InvoiceId`` adds up to what is to be paid, exactly, in rows and in details.
Null is a real null; numbers are decimals, never floats.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import Any, Literal

from msgspec import Struct

from engine.domain.billing.periods import DIGITS_MAX
from projections.invoice import DrawnUp, Line
from projections.ledger import Row
from schemas.billing import BillingSettings, Customer, Invoice
from schemas.months import month_bounds
from schemas.units import Micros

type Version = Literal["1.4", "1.2"]
type Kind = Literal["String", "Decimal", "DateTime", "Integer", "JSON"]
type Record = dict[str, Any]

DATASETS = ("cost-and-usage", "invoice-detail", "billing-period")
PRECISION, SCALE = 38, 12
CSV, PARQUET = "csv", "parquet"
STATUS = {"closed": "Open", "issued": "Issued", "voided": "Voided"}
# Of a meter, by the first words of its key: category, service, subcategory.
SERVICES: dict[str, tuple[str, str, str]] = {
    "compute": ("Compute", "Servers", "Virtual Machines"),
    "image": ("Storage", "Images", "Other (Storage)"),
    "volume": ("Storage", "Volumes", "Block Storage"),
    "snapshot": ("Storage", "Volumes", "Block Storage"),
    "backup": ("Storage", "Backups", "Backup Storage"),
    "object": ("Storage", "Objects", "Object Storage"),
    "network": ("Networking", "Networks", "Network Connectivity"),
}
OTHER = ("Other", "Billing", "Other (Other)")


class Issued(Struct, frozen=True, kw_only=True):
    """One customer's month as it is exported. ``invoice`` is None for a draft."""

    drawn: DrawnUp
    customer: Customer
    invoice: Invoice | None


class Names(Struct, frozen=True, kw_only=True):
    """What ids are called, where it is known: names are shown and never hashed."""

    projects: Mapping[str, str]
    resources: Mapping[str, str]


class Export(Struct, frozen=True, kw_only=True):
    """A dataset: its columns with their types, its records, and whether they are final."""

    dataset: str
    version: str
    columns: tuple[tuple[str, Kind], ...]
    records: tuple[Record, ...]
    complete: bool
    updated: Micros


USAGE_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("BilledCost", "Decimal"), ("BillingAccountId", "String"), ("BillingAccountName", "String"),
    ("BillingAccountType", "String"), ("BillingCurrency", "String"),
    ("BillingPeriodEnd", "DateTime"), ("BillingPeriodStart", "DateTime"),
    ("ChargeCategory", "String"), ("ChargeClass", "String"), ("ChargeDescription", "String"),
    ("ChargeFrequency", "String"), ("ChargePeriodEnd", "DateTime"),
    ("ChargePeriodStart", "DateTime"), ("ConsumedQuantity", "Decimal"), ("ConsumedUnit", "String"),
    ("ContractedCost", "Decimal"), ("ContractedUnitPrice", "Decimal"),
    ("EffectiveCost", "Decimal"), ("HostProviderName", "String"), ("InvoiceDetailId", "String"),
    ("InvoiceId", "String"), ("InvoiceIssuerName", "String"), ("ListCost", "Decimal"),
    ("ListUnitPrice", "Decimal"), ("PricingCategory", "String"), ("PricingQuantity", "Decimal"),
    ("PricingUnit", "String"), ("RegionId", "String"), ("RegionName", "String"),
    ("ResourceId", "String"), ("ResourceName", "String"), ("ResourceType", "String"),
    ("ServiceCategory", "String"), ("ServiceName", "String"), ("ServiceProviderName", "String"),
    ("ServiceSubcategory", "String"), ("SkuId", "String"), ("SkuMeter", "String"),
    ("SkuPriceDetails", "JSON"), ("SkuPriceId", "String"), ("SubAccountId", "String"),
    ("SubAccountName", "String"), ("SubAccountType", "String"), ("Tags", "JSON"),
    ("x_ChainHash", "String"), ("x_EventIds", "JSON"), ("x_LogSequenceEnd", "Integer"),
    ("x_MeterVersion", "Integer"), ("x_OfInvoiceId", "String"), ("x_PriceListVersion", "Integer"),
)  # fmt: skip
DETAIL_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("BilledCost", "Decimal"), ("BillingAccountId", "String"), ("BillingAccountName", "String"),
    ("BillingCurrency", "String"), ("BillingPeriodEnd", "DateTime"),
    ("BillingPeriodStart", "DateTime"), ("ChargeCategory", "String"),
    ("InvoiceDetailCreated", "DateTime"), ("InvoiceDetailDescription", "String"),
    ("InvoiceDetailGrain", "JSON"), ("InvoiceDetailId", "String"),
    ("InvoiceDetailLastUpdated", "DateTime"), ("InvoiceId", "String"),
    ("InvoiceIssueDate", "DateTime"), ("InvoiceIssueStatus", "String"),
    ("InvoiceIssuerName", "String"), ("PaymentCurrency", "String"), ("PaymentDueDate", "DateTime"),
    ("PaymentTerms", "String"), ("PurchaseOrderNumber", "String"), ("ReferenceInvoiceId", "String"),
)  # fmt: skip
PERIOD_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("BillingPeriodCreated", "DateTime"), ("BillingPeriodEnd", "DateTime"),
    ("BillingPeriodLastUpdated", "DateTime"), ("BillingPeriodStart", "DateTime"),
    ("BillingPeriodStatus", "String"), ("InvoiceIssuerName", "String"),
)  # fmt: skip
# What 1.2 calls otherwise, and what it does not have.
NAMES_1_2 = {
    "HostProviderName": "ProviderName",
    "ServiceProviderName": "PublisherName",
    "InvoiceDetailId": "x_InvoiceDetailId",
}


def cost_and_usage(
    issued: Sequence[Issued],
    settings: BillingSettings,
    names: Names,
    region: str,
    chain_hash: str,
    *,
    updated: Micros,
    version: Version = "1.4",
) -> Export:
    """Return a record for each row of these invoices."""
    records = [
        _usage(each, row, line, settings, names, region, chain_hash)
        for each in issued
        for row, line in zip(each.drawn.rows, each.drawn.line_of, strict=True)
    ]
    columns = USAGE_COLUMNS
    if version == "1.2":
        renamed = ((NAMES_1_2.get(name, name), kind) for name, kind in columns)
        columns = tuple(sorted(renamed, key=lambda column: (column[0][:2] == "x_", column[0])))
        records = [{NAMES_1_2.get(n, n): value for n, value in r.items()} for r in records]
    return Export(
        dataset=DATASETS[0],
        version=version,
        columns=columns,
        records=tuple(records),
        complete=all(each.invoice is not None for each in issued),
        updated=updated,
    )


def invoice_detail(
    issued: Sequence[Issued], settings: BillingSettings, *, updated: Micros
) -> Export:
    """Return a record for each line of invoices of closed months."""
    records = [
        _detail(each, each.invoice, line, settings)
        for each in issued
        if each.invoice is not None
        for line in each.drawn.document.lines
    ]
    return Export(
        dataset=DATASETS[1],
        version="1.4",
        columns=DETAIL_COLUMNS,
        records=tuple(records),
        complete=bool(issued) and all(each.invoice is not None for each in issued),
        updated=updated,
    )


def _detail(each: Issued, invoice: Invoice, line: Line, settings: BillingSettings) -> Record:
    document = each.drawn.document
    of_sku = {"SubAccountId": line.project_id, "SkuId": line.sku}
    changed = invoice.voided_at or invoice.issued_at or invoice.closed_at
    return {
        **_account(each),
        "BilledCost": Decimal(line.amount),
        "ChargeCategory": line.category,
        "InvoiceDetailCreated": _moment(invoice.closed_at),
        "InvoiceDetailDescription": line.description,
        "InvoiceDetailGrain": _json(of_sku if line.sku else {"Description": line.description}),
        "InvoiceDetailId": f"{document.invoice_id}#{line.line}",
        "InvoiceDetailLastUpdated": _moment(changed),
        "InvoiceId": _invoice_id(each),
        "InvoiceIssueDate": _moment(invoice.issued_at or invoice.closed_at),
        "InvoiceIssueStatus": STATUS[invoice.status],
        "InvoiceIssuerName": settings.issuer_name,
        "PaymentCurrency": document.currency,
        "PaymentDueDate": _moment(invoice.due_at),
        "PaymentTerms": settings.payment_terms or f"{settings.payment_days} days",
        "PurchaseOrderNumber": each.customer.reference or None,
        "ReferenceInvoiceId": line.of_invoice or None,
    }


def billing_period(
    months: Iterable[tuple[str, bool]], settings: BillingSettings, *, updated: Micros
) -> Export:
    """Return a record for each month, given with whether it is closed."""
    records: list[Record] = []
    for month, is_closed in months:
        start, end = month_bounds(month)
        records.append(
            {
                "BillingPeriodCreated": _moment(start),
                "BillingPeriodEnd": _moment(end),
                "BillingPeriodLastUpdated": _moment(updated),
                "BillingPeriodStart": _moment(start),
                "BillingPeriodStatus": "Closed" if is_closed else "Open",
                "InvoiceIssuerName": settings.issuer_name,
            }
        )
    return Export(
        dataset=DATASETS[2],
        version="1.4",
        columns=PERIOD_COLUMNS,
        records=tuple(records),
        complete=True,
        updated=updated,
    )


def metadata(export: Export, generator: str) -> Record:
    """Return the metadata object that goes with an export."""
    return {
        "DataGenerator": {"DataGenerator": generator},
        "Schema": {
            "SchemaId": f"cumulog-{export.dataset}-{export.version}",
            "FocusVersion": export.version,
            "ColumnDefinition": [_definition(name, kind) for name, kind in export.columns],
        },
        "DatasetInstance": {"DatasetInstanceName": export.dataset, "Rows": len(export.records)},
        "Recency": {
            "DatasetInstanceLastUpdated": _iso(_moment(export.updated)),
            "DatasetInstanceComplete": export.complete,
        },
    }


def as_csv(export: Export) -> bytes:
    """Return an export as CSV (RFC 4180): a null is nothing, an empty text is quoted."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_NOTNULL, lineterminator="\r\n")
    writer.writerow([name for name, _ in export.columns])
    for record in export.records:
        writer.writerow([_text(record[name]) for name, _ in export.columns])
    return out.getvalue().encode()


def as_parquet(export: Export) -> bytes:
    """Return an export as Parquet: decimals of 38 digits, times in UTC, the metadata beside."""
    import pyarrow as pa  # noqa: PLC0415  # half a second, and rarely needed
    import pyarrow.parquet as pq  # noqa: PLC0415  # as above

    types = {
        "String": pa.string(),
        "JSON": pa.string(),
        "Integer": pa.int64(),
        "Decimal": pa.decimal128(PRECISION, SCALE),
        "DateTime": pa.timestamp("us", tz="UTC"),
    }
    schema = pa.schema(
        [(name, types[kind]) for name, kind in export.columns],
        metadata={"focus": json.dumps(metadata(export, "Cumulog"))},
    )
    columns = {name: [record[name] for record in export.records] for name, _ in export.columns}
    out = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), out)
    return out.getvalue()


FORMATS: Mapping[str, Callable[[Export], bytes]] = {CSV: as_csv, PARQUET: as_parquet}


def _usage(
    each: Issued,
    row: Row,
    line: int,
    settings: BillingSettings,
    names: Names,
    region: str,
    chain_hash: str,
) -> Record:
    category, service, subcategory = (
        SERVICES.get(row.meter.partition(".")[0], OTHER) if row.meter else OTHER
    )
    issuer = settings.issuer_name
    priced = _priced(row) if row.category == "Usage" and row.quantity else {}
    is_usage = row.category == "Usage"
    return {
        **_account(each),
        "BilledCost": Decimal(row.amount),
        "BillingAccountType": "Customer",
        "ChargeCategory": row.category,
        "ChargeClass": row.charge_class or None,
        "ChargeDescription": row.description,
        "ChargeFrequency": "Usage-Based" if is_usage else "One-Time",
        "ChargePeriodEnd": _moment(row.end),
        "ChargePeriodStart": _moment(row.start),
        "ConsumedQuantity": Decimal(row.quantity) if priced else None,
        "ConsumedUnit": row.unit if priced else None,
        "ContractedCost": Decimal(row.amount),
        "ContractedUnitPrice": priced.get("contracted"),
        "EffectiveCost": Decimal(row.amount),
        "HostProviderName": issuer,
        "InvoiceDetailId": f"{each.drawn.document.invoice_id}#{line}",
        "InvoiceId": _invoice_id(each),
        "InvoiceIssuerName": issuer,
        "ListCost": Decimal(row.list_amount),
        "ListUnitPrice": priced.get("list"),
        "PricingCategory": "Standard" if priced else None,
        "PricingQuantity": priced.get("quantity"),
        "PricingUnit": priced.get("unit"),
        "RegionId": region if row.resource_id else None,
        "RegionName": region if row.resource_id else None,
        "ResourceId": row.resource_id or None,
        "ResourceName": names.resources.get(row.resource_id) if row.resource_id else None,
        "ResourceType": row.resource_kind.title() or None,
        "ServiceCategory": category,
        "ServiceName": service,
        "ServiceProviderName": issuer,
        "ServiceSubcategory": subcategory,
        "SkuId": row.sku if priced else None,
        "SkuMeter": row.meter if priced else None,
        "SkuPriceDetails": _json({"x_Model": row.model, "x_Tier": row.tier, **_own(row)})
        if priced
        else None,
        "SkuPriceId": f"{row.price_list}-{row.price_list_version}-{row.sku}-{row.tier}"
        if priced
        else None,
        "SubAccountId": row.project_id or None,
        "SubAccountName": names.projects.get(row.project_id) if row.project_id else None,
        "SubAccountType": "Project" if row.project_id else None,
        "Tags": _json(row.dimensions) if row.dimensions else None,
        "x_ChainHash": chain_hash,
        "x_EventIds": _json([str(row.first_ordinal), str(row.last_ordinal)])
        if row.first_ordinal
        else None,
        "x_LogSequenceEnd": each.drawn.document.ordinal,
        "x_MeterVersion": row.meter_version or None,
        "x_OfInvoiceId": row.of_invoice or None,
        "x_PriceListVersion": row.price_list_version or None,
    }


def _priced(row: Row) -> Record:
    """Return quantity, unit and prices: quantity times price is the cost before it is rounded."""
    with localcontext(prec=DIGITS_MAX):
        if row.model == "flat":
            quantity, unit = Decimal(bool(Decimal(row.list_amount))), "Months"
        else:
            quantity = (Decimal(row.quantity) / row.per).quantize(Decimal(1).scaleb(-SCALE))
            unit = row.unit if row.per == 1 else f"{row.per} {row.unit}"
        price = Decimal(row.price)
        off = Decimal(row.discount or 0)
        return {
            "quantity": quantity,
            "unit": unit,
            "list": price,
            "contracted": (price * (100 - off)).scaleb(-2),
        }


def _own(row: Row) -> Record:
    return {"x_DiscountPercent": row.discount} if row.discount else {}


def _account(each: Issued) -> Record:
    document = each.drawn.document
    return {
        "BillingAccountId": document.customer_id,
        "BillingAccountName": each.customer.name,
        "BillingCurrency": document.currency,
        "BillingPeriodEnd": _moment(document.end),
        "BillingPeriodStart": _moment(document.start),
    }


def _invoice_id(each: Issued) -> str:
    number = each.invoice.number if each.invoice is not None else ""
    return number or each.drawn.document.invoice_id


def _definition(name: str, kind: Kind) -> Record:
    told: Record = {"ColumnName": name, "DataType": kind}
    if kind == "Decimal":
        told |= {"NumericPrecision": PRECISION, "NumberScale": SCALE}
    return told


def _moment(at: Micros | None) -> datetime | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at // 1_000_000, UTC).replace(microsecond=at % 1_000_000)


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().removesuffix("+00:00") + "Z"


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _text(value: object) -> str | None:
    match value:
        case None:
            return None
        case datetime():
            return _iso(value)
        case Decimal():
            return f"{value:f}"
        case _:
            return str(value)
