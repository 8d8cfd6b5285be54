"""FOCUS: invoices as the FinOps Open Cost and Usage Specification has them. Pure.

Version 1.4 (Cost and Usage, Invoice Detail, Billing Period), and of Cost and Usage also 1.2, which
names its providers otherwise. Columns are in alphabetical order, ours last (``x_``). Invariant: the
``BilledCost`` of an ``InvoiceId`` adds up to what is to be paid, exactly, in rows and in details (a
voided one has a record that takes all back). Null is a real null; numbers are decimals, never
floats. Records are made and written one after the other: memory does not grow with them.
"""

import csv
import functools
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from itertools import batched
from typing import IO, Any, Literal

import msgspec
from msgspec import Struct

from engine.domain.billing.periods import DIGITS_MAX
from projections.invoice import Document, Line
from projections.ledger import CORRECTION, Row
from projections.spreadsheet import harmless
from schemas.billing import BillingSettings, Customer, Invoice
from schemas.errors import InvalidInput
from schemas.months import month_bounds
from schemas.units import Micros

_encode = msgspec.json.Encoder(order="sorted").encode

type Version = Literal["1.4", "1.2"]
type Kind = Literal["String", "Decimal", "DateTime", "Integer", "JSON"]
type Record = dict[str, Any]

DATASETS = ("cost-and-usage", "invoice-detail", "billing-period")
PRECISION, SCALE = 38, 12
# A price has 12 decimals, and less a discount of 6 and a hundred 8 more: none is cut.
SCALES = {"ContractedUnitPrice": 20, "ListUnitPrice": 20}
CSV, PARQUET = "csv", "parquet"
NAMED_AT_ONCE = 1000  # rows whose names are looked up together
CACHED = 4096  # times: most rows are of whole days
ROW_GROUP = 20_000  # rows of Parquet that are held in memory
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
TAGS = "cumulog/"  # what the names of our own tags begin with


class Issued(Struct, frozen=True, kw_only=True):
    """One customer's month as it is exported. ``invoice`` is None for a draft.

    ``rows`` are those of the document, each with the number of its line; they are gone through
    once, and only by ``cost_and_usage``.
    """

    document: Document
    customer: Customer
    invoice: Invoice | None
    rows: Iterable[tuple[Row, int]] = ()


class Names(Struct, frozen=True, kw_only=True):
    """What ids are called, where it is known: names are shown and never hashed."""

    projects: Mapping[str, str]
    resources: Mapping[str, str]


class Export(Struct, frozen=True, kw_only=True):
    """A dataset: its columns with their types, its records, and whether they are final.

    Records can be gone through once; how many there are is known before.
    """

    dataset: str
    version: str
    columns: tuple[tuple[str, Kind], ...]
    records: Iterable[Record]
    rows: int
    complete: bool
    updated: Micros


type Named = Callable[[Sequence[Row]], Names]
type Numbered = Callable[[str], str]


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
    named: Named,
    numbered: Numbered,
    region: str,
    chain_hash: str,
    *,
    complete: bool,
    updated: Micros,
    version: Version = "1.4",
) -> Export:
    """Return a record for each row of these invoices, and one that takes back a voided one.

    Args:
        issued: the invoices, with their rows.
        settings: who issues them.
        named: returns what the ids in some rows are called.
        numbered: returns the number of an invoice by its id; the id if it has none.
        region: where all of it runs.
        chain_hash: of the log, where the rows follow from.
        complete: whether the month is closed.
        updated: when this is.
        version: of FOCUS.
    """
    columns = USAGE_COLUMNS
    found = _usages(issued, settings, named, numbered, region, chain_hash)
    if version == "1.2":
        renamed = ((NAMES_1_2.get(name, name), kind) for name, kind in columns)
        columns = tuple(sorted(renamed, key=lambda column: (column[0][:2] == "x_", column[0])))
        found = ({NAMES_1_2.get(n, n): value for n, value in r.items()} for r in found)
    return Export(
        dataset=DATASETS[0],
        version=version,
        columns=columns,
        records=found,
        rows=sum(each.document.rows + _is_voided(each) for each in issued),
        complete=complete,
        updated=updated,
    )


def invoice_detail(
    issued: Sequence[Issued],
    settings: BillingSettings,
    numbered: Numbered,
    *,
    complete: bool,
    updated: Micros,
) -> Export:
    """Return a record for each line of invoices of closed months; see ``cost_and_usage``."""
    records = [
        record
        for each in issued
        if each.invoice is not None
        for record in _details(each, each.invoice, settings, numbered)
    ]
    return Export(
        dataset=DATASETS[1],
        version="1.4",
        columns=DETAIL_COLUMNS,
        records=records,
        rows=len(records),
        complete=complete,
        updated=updated,
    )


def _details(
    each: Issued, invoice: Invoice, settings: BillingSettings, numbered: Numbered
) -> Iterator[Record]:
    for line in each.document.lines:
        yield _detail(each, invoice, line, settings, numbered)
    if _is_voided(each):
        yield _detail(each, invoice, _voiding(each), settings, numbered)


def _is_voided(each: Issued) -> bool:
    return each.invoice is not None and each.invoice.status == "voided"


def _voiding(each: Issued) -> Line:
    """Return the line that takes back all of an invoice."""
    document = each.document
    reason = "" if each.invoice is None else each.invoice.void_reason
    with localcontext(prec=DIGITS_MAX):
        return Line(
            line=len(document.lines) + 1,
            category="Adjustment",
            charge_class=CORRECTION,
            description=f"Voided: {reason}",
            amount=f"{-Decimal(document.total):f}",
            rows=1,
        )


def _detail(
    each: Issued,
    invoice: Invoice,
    line: Line,
    settings: BillingSettings,
    numbered: Numbered,
) -> Record:
    document = each.document
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
        "InvoiceIssueDate": _moment(invoice.issued_at),
        "InvoiceIssueStatus": STATUS[invoice.status],
        "InvoiceIssuerName": settings.issuer_name,
        "PaymentCurrency": document.currency,
        "PaymentDueDate": _moment(invoice.due_at),
        "PaymentTerms": settings.payment_terms or f"{settings.payment_days} days",
        "PurchaseOrderNumber": each.customer.reference or None,
        "ReferenceInvoiceId": numbered(line.of_invoice) if line.of_invoice else _invoice_id(each),
    }


def billing_period(
    months: Sequence[tuple[str, Micros | None]], settings: BillingSettings, *, updated: Micros
) -> Export:
    """Return a record for each month, given with when it was closed; None if it is open."""
    records: list[Record] = []
    for month, closed_at in months:
        start, end = month_bounds(month)
        records.append(
            {
                "BillingPeriodCreated": _moment(start),
                "BillingPeriodEnd": _moment(end),
                "BillingPeriodLastUpdated": _moment(updated if closed_at is None else closed_at),
                "BillingPeriodStart": _moment(start),
                "BillingPeriodStatus": "Open" if closed_at is None else "Closed",
                "InvoiceIssuerName": settings.issuer_name,
            }
        )
    return Export(
        dataset=DATASETS[2],
        version="1.4",
        columns=PERIOD_COLUMNS,
        records=records,
        rows=len(records),
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
        "DatasetInstance": {"DatasetInstanceName": export.dataset, "Rows": export.rows},
        "Recency": {
            "DatasetInstanceLastUpdated": _json_moment(export.updated),
            "DatasetInstanceComplete": export.complete,
        },
    }


def as_csv(export: Export, out: IO[bytes]) -> None:
    """Write an export as CSV (RFC 4180): a null is nothing, an empty text is quoted.

    Text that a spreadsheet would take for a formula has an apostrophe before it.
    """
    text = io.TextIOWrapper(out, encoding="utf-8", newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NOTNULL, lineterminator="\r\n")
    writer.writerow([name for name, _ in export.columns])
    ways = [(name, _AS_TEXT[kind]) for name, kind in export.columns]
    for record in export.records:
        writer.writerow(
            [None if (value := record[name]) is None else way(value) for name, way in ways]
        )
    text.detach()  # which writes what is left, and leaves the file open


def as_parquet(export: Export, out: IO[bytes]) -> None:
    """Write an export as Parquet: decimals of 38 digits, times in UTC, the metadata beside.

    Raises:
        InvalidInput: a number has more digits than that.
    """
    import pyarrow as pa  # noqa: PLC0415  # half a second, and rarely needed
    import pyarrow.parquet as pq  # noqa: PLC0415  # as above

    types = {
        "String": pa.string(),
        "JSON": pa.string(),
        "Integer": pa.int64(),
        "DateTime": pa.timestamp("us", tz="UTC"),
    }
    schema = pa.schema(
        [
            (name, types.get(kind) or pa.decimal128(PRECISION, _scale(name)))
            for name, kind in export.columns
        ],
        metadata={"focus": json.dumps(metadata(export, "Cumulog"))},
    )
    numbers = [name for name, kind in export.columns if kind == "Decimal"]
    with pq.ParquetWriter(out, schema) as writer:
        for records in batched(export.records, ROW_GROUP):
            for name in numbers:
                _need_room(name, records)
            columns = {name: [record[name] for record in records] for name, _ in export.columns}
            writer.write_table(pa.table(columns, schema=schema))


def _need_room(name: str, records: Sequence[Record]) -> None:
    """Return if all numbers of a column have room in it; none is ever cut."""
    room = PRECISION - _scale(name)
    for record in records:
        number = record[name]
        if number is not None and number.adjusted() >= room:
            raise InvalidInput(
                f"{name} {number:f} has more digits than Parquet's decimals: export it as CSV"
            )


FORMATS: Mapping[str, Callable[[Export, IO[bytes]], None]] = {CSV: as_csv, PARQUET: as_parquet}


def _usages(
    issued: Sequence[Issued],
    settings: BillingSettings,
    named: Named,
    numbered: Numbered,
    region: str,
    chain_hash: str,
) -> Iterator[Record]:
    for each in issued:
        for some in batched(each.rows, NAMED_AT_ONCE):
            names = named([row for row, _ in some])
            for row, line in some:
                yield _usage(each, row, line, settings, names, numbered, region, chain_hash)
        if _is_voided(each):
            last = _voiding(each)
            row = Row(
                category="Adjustment",
                charge_class=last.charge_class,
                description=last.description,
                start=each.document.start,
                end=each.document.end,
                list_amount=last.amount,
                amount=last.amount,
            )
            names = Names(projects={}, resources={})
            yield _usage(each, row, last.line, settings, names, numbered, region, chain_hash)


def _usage(
    each: Issued,
    row: Row,
    line: int,
    settings: BillingSettings,
    names: Names,
    numbered: Numbered,
    region: str,
    chain_hash: str,
) -> Record:
    category, service, subcategory = _service(row.meter)
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
        "ContractedCost": _contracted(row) if priced else Decimal(row.amount),
        "ContractedUnitPrice": priced.get("contracted"),
        "EffectiveCost": Decimal(row.amount),
        "HostProviderName": issuer,
        "InvoiceDetailId": f"{each.document.invoice_id}#{line}",
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
        # The name of the list comes last: it alone may have a slash.
        "SkuPriceId": f"{row.sku}/{row.tier}/{row.price_list_version}/{row.price_list}"
        if priced
        else None,
        "SubAccountId": row.project_id or None,
        "SubAccountName": names.projects.get(row.project_id, row.project_id)
        if row.project_id
        else None,
        "SubAccountType": "Project" if row.project_id else None,
        "Tags": _json({f"{TAGS}{name}": value for name, value in row.dimensions.items()})
        if row.dimensions
        else None,
        "x_ChainHash": chain_hash,
        "x_EventIds": _json([str(row.first_ordinal), str(row.last_ordinal)])
        if row.first_ordinal
        else None,
        "x_LogSequenceEnd": each.document.ordinal,
        "x_MeterVersion": row.meter_version or None,
        "x_OfInvoiceId": numbered(row.of_invoice) if row.of_invoice else None,
        "x_PriceListVersion": row.price_list_version or None,
    }


def _priced(row: Row) -> Record:
    """Return quantity, unit and prices: quantity times price is the cost before it is rounded."""
    with localcontext(prec=DIGITS_MAX):
        if row.model == "flat":
            cost = Decimal(row.list_amount)  # below zero where it is taken back
            quantity, unit = Decimal((cost > 0) - (cost < 0)), "Months"
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


def _contracted(row: Row) -> Decimal:
    """Return what a row costs at its contracted price.

    That is what is billed, but for what lies over the maximum that a month may cost.
    """
    with localcontext(prec=DIGITS_MAX):
        amount, listed = Decimal(row.amount), Decimal(row.list_amount)
        full = (listed * (100 - Decimal(row.discount or 0))).scaleb(-2)
        unit = Decimal(1).scaleb(int(listed.as_tuple().exponent))
        if abs(full - amount) <= unit:  # each was rounded on its own
            return amount
        return full.quantize(unit, rounding=ROUND_HALF_EVEN)


def _service(meter: str) -> tuple[str, str, str]:
    """Return category, service and subcategory of what a meter is about."""
    of = meter.partition(".")[0]
    category, service, subcategory = SERVICES.get(of, OTHER)
    return category, of.title() if of and of not in SERVICES else service, subcategory


def _scale(name: str) -> int:
    return SCALES.get(name, SCALE)


def _own(row: Row) -> Record:
    return {"x_DiscountPercent": row.discount} if row.discount else {}


def _account(each: Issued) -> Record:
    document = each.document
    return {
        "BillingAccountId": document.customer_id,
        "BillingAccountName": each.customer.name,
        "BillingCurrency": document.currency,
        "BillingPeriodEnd": _moment(document.end),
        "BillingPeriodStart": _moment(document.start),
    }


def _invoice_id(each: Issued) -> str:
    number = each.invoice.number if each.invoice is not None else ""
    return number or each.document.invoice_id


def _definition(name: str, kind: Kind) -> Record:
    told: Record = {"ColumnName": name, "DataType": kind}
    if kind == "Decimal":
        told |= {"NumericPrecision": PRECISION, "NumberScale": _scale(name)}
    return told


@functools.lru_cache(CACHED)
def _moment(at: Micros | None) -> datetime | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at // 1_000_000, UTC).replace(microsecond=at % 1_000_000)


def _json_moment(at: Micros) -> str:
    moment = _moment(at)
    assert moment is not None, "it has one"
    return _iso(moment)


@functools.lru_cache(CACHED)
def _iso(moment: datetime) -> str:
    return moment.isoformat().removesuffix("+00:00") + "Z"


def _json(value: object) -> str:
    return _encode(value).decode()


# How a value that is not null is written as text.
_AS_TEXT: Mapping[Kind, Callable[[Any], str]] = {
    "String": harmless,
    "Decimal": "{:f}".format,
    "DateTime": _iso,
    "Integer": str,
    "JSON": str,
}
