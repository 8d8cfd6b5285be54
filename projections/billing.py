"""Read model of money: price lists, customers and who pays for what, closed months, invoices.

Every version of a price list is kept, since any may be asked for; of a customer the newest. Of a
closed month and its invoices the sums are here; rows are derived from history whenever asked for.
"""

from decimal import Decimal, localcontext

from msgspec import Struct
from msgspec.structs import replace

from engine.domain.billing.budgets import passed
from engine.domain.billing.customers import assigned
from engine.domain.billing.periods import DIGITS_MAX, invoice_of, issued, voided
from projections.store import Table, Writer
from schemas import billing as s
from schemas.units import Micros, Ordinal

NAME = "billing"
VERSION = 2
ROW = "settings"


class Payers(Struct, frozen=True):
    """Who pays for a project, as time goes."""

    project_id: str
    payers: tuple[s.Payer, ...]


class CreditsUsed(Struct, frozen=True):
    """How much of which credit an invoice uses."""

    invoice_id: str
    credits: dict[str, str]


PRICE_LISTS = Table(
    "price_lists",
    s.PriceList,
    key=("name", "version"),
    columns="name TEXT NOT NULL, version INTEGER NOT NULL, valid_from INTEGER NOT NULL",
    values=lambda p: (p.name, p.version, p.valid_from),
)
CUSTOMERS = Table(
    "customers",
    s.Customer,
    columns="id TEXT NOT NULL, name TEXT NOT NULL",
    values=lambda c: (c.customer_id, c.name),
)
PAYERS = Table(
    "payers",
    Payers,
    columns="id TEXT NOT NULL, customer_id TEXT NOT NULL",
    values=lambda p: (p.project_id, p.payers[-1].customer_id),
    indexes=("(customer_id, id)",),
)
CREDITS = Table(
    "credits",
    s.Credit,
    columns="id TEXT NOT NULL, customer_id TEXT NOT NULL, granted_at INTEGER NOT NULL",
    values=lambda c: (c.credit_id, c.customer_id, c.granted_at),
    indexes=("(customer_id, granted_at, id)",),
)
CREDITS_USED = Table(
    "credits_used",
    CreditsUsed,
    columns="id TEXT NOT NULL",
    values=lambda used: (used.invoice_id,),
)
PERIODS = Table(
    "periods", s.Closing, columns="id TEXT NOT NULL", values=lambda closing: (closing.period,)
)
INVOICES = Table(
    "invoices",
    s.Invoice,
    columns="id TEXT NOT NULL, customer_id TEXT NOT NULL, period TEXT NOT NULL, "
    "status TEXT NOT NULL, number TEXT NOT NULL",
    values=lambda i: (i.invoice_id, i.customer_id, i.period, i.status, i.number),
    indexes=("(customer_id, period)", "(number)"),
)
CORRECTIONS = Table(
    "corrections",
    s.LineCorrection,
    columns="id TEXT NOT NULL, invoice_id TEXT NOT NULL, recorded_at INTEGER NOT NULL",
    values=lambda c: (c.correction_id, c.invoice_id, c.recorded_at),
    indexes=("(invoice_id, recorded_at)",),
)
BUDGETS = Table(
    "budgets",
    s.Budget,
    columns="id TEXT NOT NULL, customer_id TEXT NOT NULL, name TEXT NOT NULL",
    values=lambda b: (b.budget_id, b.customer_id, b.name),
)
SETTINGS = Table(
    "billing_settings", s.BillingSettings, columns="id TEXT NOT NULL", values=lambda _: (ROW,)
)

STATEMENTS = (
    *PRICE_LISTS.create,
    *CUSTOMERS.create,
    *PAYERS.create,
    *CREDITS.create,
    *CREDITS_USED.create,
    *PERIODS.create,
    *INVOICES.create,
    *CORRECTIONS.create,
    *SETTINGS.create,
    *BUDGETS.create,
)


def _published(writer: Writer, fact: s.PriceListPublished, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(PRICE_LISTS, fact.price_list, ordinal)


def _withdrawn(writer: Writer, fact: s.PriceListWithdrawn, _ordinal: Ordinal, _at: Micros) -> None:
    writer.drop(PRICE_LISTS, (fact.name, fact.version))


def _customer_saved(writer: Writer, fact: s.CustomerSaved, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(CUSTOMERS, fact.customer, ordinal)


def _assigned(writer: Writer, fact: s.ProjectAssigned, ordinal: Ordinal, _at: Micros) -> None:
    old = writer.find(PAYERS, fact.project_id)
    payer = s.Payer(customer_id=fact.customer_id, since=fact.since)
    payers = assigned(() if old is None else old.payers, payer)
    writer.put(PAYERS, Payers(fact.project_id, payers), ordinal)


def _credit_granted(writer: Writer, fact: s.CreditGranted, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(CREDITS, fact.credit, ordinal)


def _set(writer: Writer, fact: s.BillingSet, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(SETTINGS, fact.settings, ordinal)


def _closed(writer: Writer, fact: s.PeriodClosed, ordinal: Ordinal, at: Micros) -> None:
    closing = fact.closing
    writer.put(PERIODS, replace(closing, invoices=()), ordinal)
    for closed in closing.invoices:
        writer.put(INVOICES, invoice_of(closed, closing.period, at), ordinal)
        writer.put(CREDITS_USED, CreditsUsed(closed.invoice_id, closed.credits), ordinal)
        _use(writer, closed.credits, -1, ordinal)


def _use(writer: Writer, credits_: dict[str, str], sign: int, ordinal: Ordinal) -> None:
    for credit_id, amount in credits_.items():
        credit = writer.need(CREDITS, credit_id)
        with localcontext(prec=DIGITS_MAX):
            remaining = Decimal(credit.remaining) + sign * Decimal(amount)
        writer.put(CREDITS, replace(credit, remaining=f"{remaining:f}"), ordinal)


def _issued(writer: Writer, fact: s.InvoiceIssued, ordinal: Ordinal, at: Micros) -> None:
    writer.put(INVOICES, issued(writer.need(INVOICES, fact.invoice_id), fact, at), ordinal)


def _voided(writer: Writer, fact: s.InvoiceVoided, ordinal: Ordinal, at: Micros) -> None:
    writer.put(INVOICES, voided(writer.need(INVOICES, fact.invoice_id), fact, at), ordinal)
    used = writer.need(CREDITS_USED, fact.invoice_id)
    _use(writer, used.credits, 1, ordinal)
    writer.drop(CREDITS_USED, fact.invoice_id)


def _corrected(writer: Writer, fact: s.LineCorrected, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(CORRECTIONS, fact.correction, ordinal)


def _budget_created(writer: Writer, fact: s.BudgetCreated, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(BUDGETS, fact.budget, ordinal)


def _budget_deleted(writer: Writer, fact: s.BudgetDeleted, _ordinal: Ordinal, _at: Micros) -> None:
    writer.drop(BUDGETS, fact.budget_id)


def _budget_passed(writer: Writer, fact: s.BudgetPassed, ordinal: Ordinal, _at: Micros) -> None:
    budget = writer.need(BUDGETS, fact.budget_id)
    writer.put(BUDGETS, passed(budget, fact), ordinal)


APPLY = {
    s.PriceListPublished: _published,
    s.PriceListWithdrawn: _withdrawn,
    s.CustomerSaved: _customer_saved,
    s.ProjectAssigned: _assigned,
    s.CreditGranted: _credit_granted,
    s.BillingSet: _set,
    s.PeriodClosed: _closed,
    s.InvoiceIssued: _issued,
    s.InvoiceVoided: _voided,
    s.LineCorrected: _corrected,
    s.BudgetCreated: _budget_created,
    s.BudgetDeleted: _budget_deleted,
    s.BudgetPassed: _budget_passed,
}
