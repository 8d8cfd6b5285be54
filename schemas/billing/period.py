"""Closed months and invoices.

A month is closed once, in order, by what the archiver has derived from the log up to an ordinal:
the tuple of a ``Closing`` is all that is needed to derive each of its invoices again, for ever, to
the byte. What is found later is billed in the next month, as a reversal and a corrected row.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.billing.prices import DecimalText
from schemas.ids import Id, IdOrNone
from schemas.units import LongText, Micros, Name, Ordinal, Text

Month = Annotated[str, Meta(pattern=r"^(19[789][0-9]|20[0-9][0-9]|2100)-(0[1-9]|1[0-2])\Z")]
Money = Annotated[str, Meta(pattern=r"^-?[0-9]{1,30}(\.[0-9]{1,12})?\Z")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
type InvoiceStatus = Literal["closed", "issued", "voided"]
CUSTOMERS_MAX = 2000
ISSUED_AT_ONCE = 1000


class BillingSettings(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who issues invoices, how long late reports are waited for, how long customers may take."""

    issuer_name: str = "Cumulog"
    issuer_address: str = ""
    issuer_tax_id: str = ""
    payment_terms: str = ""
    payment_days: int = 14
    grace_hours: int = 48
    prefix: str = "INV-"


class SetBilling(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Set what holds for all invoices; what is None stays."""

    issuer_name: Name | None = None
    issuer_address: LongText | None = None
    issuer_tax_id: Text | None = None
    payment_terms: Text | None = None
    payment_days: Annotated[int, Meta(ge=0, le=365)] | None = None
    grace_hours: Annotated[int, Meta(ge=0, le=24 * 31)] | None = None
    prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9/-]{0,16}\Z")] | None = None


class ClosedInvoice(Struct, frozen=True, kw_only=True):
    """What one customer owes for a closed month: sums, and the digest of the rows behind them.

    ``credits`` is how much of which credit it uses up. ``net`` is before credits and tax.
    """

    invoice_id: Id
    customer_id: Id
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")]
    rows: Annotated[int, Meta(ge=0)]
    rows_digest: Digest
    net: Money
    tax: Money
    total: Money
    credits: Annotated[dict[Id, DecimalText], Meta(max_length=1000)] = {}


class Closing(Struct, frozen=True, kw_only=True):
    """What a month was closed with: the log up to ``ordinal``, where its chain is ``chain_hash``.

    ``terms_digest`` is that of prices, customers, credits and corrections as they stood there (see
    ``engine.domain.billing.terms_digest``); ``rows_digest`` is over all invoices.
    """

    period: Month
    ordinal: Ordinal
    chain_hash: Digest
    meter_versions: Annotated[dict[str, int], Meta(max_length=1000)]
    price_list_versions: Annotated[dict[str, int], Meta(max_length=1000)]
    terms_digest: Digest
    rows_digest: Digest
    invoices: Annotated[tuple[ClosedInvoice, ...], Meta(max_length=CUSTOMERS_MAX)]


class ClosePeriod(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """The archiver: a month is over, and this is what it comes to. ``user_id`` has asked for it.

    From the archiver only: nobody else has read the log that the digests are of.
    """

    closing: Closing
    user_id: IdOrNone = ""


class Invoice(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An invoice as it stands. It has a number from when it is issued; numbers have no gaps."""

    invoice_id: str
    customer_id: str
    period: str
    currency: str
    net: str
    tax: str
    total: str
    status: InvoiceStatus
    closed_at: Micros
    number: str = ""
    issued_at: Micros | None = None
    due_at: Micros | None = None
    voided_at: Micros | None = None
    void_reason: str = ""


class IssueInvoice(
    Struct, frozen=True, kw_only=True, tag=True, tag_field="type", omit_defaults=True
):
    """Give an invoice of a closed month the next number; from then on it is to be paid.

    ``also`` are others of the same month, which get the numbers after it, in their order.
    """

    invoice_id: Id
    also: Annotated[tuple[Id, ...], Meta(max_length=ISSUED_AT_ONCE)] = ()


class VoidInvoice(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Let an invoice be owed no longer. It keeps its number; the credits it used come back."""

    invoice_id: Id
    reason: Name


class CorrectLine(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Settle a dispute: a line of an invoice should have been ``amount``.

    The invoice stays as it is; the next month's reverses the line and has the corrected one.
    """

    invoice_id: Id
    line: Annotated[int, Meta(ge=1, le=10**6)]
    amount: DecimalText
    reason: Name


class LineCorrection(Struct, frozen=True, kw_only=True):
    """What a line should have been, and why."""

    correction_id: str
    invoice_id: str
    line: int
    amount: str
    reason: str
    recorded_at: Micros


type PeriodAction = SetBilling | ClosePeriod | IssueInvoice | VoidInvoice | CorrectLine


class BillingSet(
    Struct, frozen=True, kw_only=True, tag="billing.settings.set.v1", tag_field="type"
):
    """These settings hold from now on. Not metered."""

    settings: BillingSettings


class PeriodClosed(
    Struct, frozen=True, kw_only=True, tag="billing.period.closed.v1", tag_field="type"
):
    """What was metered in the month is billed as said here; what is found later, as corrections."""

    closing: Closing


class InvoiceIssued(
    Struct, frozen=True, kw_only=True, tag="billing.invoice.issued.v1", tag_field="type"
):
    """The invoice has its number and is to be paid. Not metered."""

    invoice_id: str
    number: str
    due_at: Micros


class InvoiceVoided(
    Struct, frozen=True, kw_only=True, tag="billing.invoice.voided.v1", tag_field="type"
):
    """The invoice is owed no longer, and its credits are there again. Not metered."""

    invoice_id: str
    reason: str


class LineCorrected(
    Struct, frozen=True, kw_only=True, tag="billing.line.corrected.v1", tag_field="type"
):
    """The next month's invoice reverses the line and has the corrected one. Not metered."""

    correction: LineCorrection


type PeriodFact = BillingSet | PeriodClosed | InvoiceIssued | InvoiceVoided | LineCorrected
