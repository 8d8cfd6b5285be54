"""Closed months and their invoices.

What a month comes to is derived from history, which the decider does not read: the archiver says
it. Held against the state here is all that the state knows: that it is this month's turn and time,
that the prices and terms it was derived from are those in force, and that the sums add up. Whoever
derives the month again, from the tuple that is recorded, finds whether the rows are right.
"""

import hashlib
from decimal import ROUND_HALF_UP, Decimal, localcontext

import msgspec
from msgspec.structs import replace

from engine.domain.billing.customers import find_customer
from engine.domain.context import Context
from engine.domain.state import Cell, State
from schemas import billing as s
from schemas.currency import decimals
from schemas.envelope import Fact
from schemas.errors import Conflict, InvalidInput, NotFound
from schemas.months import month_bounds, month_of, next_month
from schemas.units import DAY, HOUR, Micros

type Decision = tuple[list[Fact], dict[str, object]]

# No sum of money comes near it, so none is rounded on the way.
DIGITS_MAX = 100
CORRECTIONS_MAX = 10_000
_encode = msgspec.json.Encoder(order="sorted").encode


def set_billing(cell: Cell, ctx: Context, action: s.SetBilling) -> Decision:
    """Change what holds for all invoices."""
    given = {name: getattr(action, name) for name in action.__struct_fields__}
    changed = {name: value for name, value in given.items() if value is not None}
    settings = replace(cell.state.billing, **changed)
    return ([s.BillingSet(settings=settings)] if settings != cell.state.billing else []), {}


def close_period(cell: Cell, ctx: Context, action: s.ClosePeriod) -> Decision:
    """Close a month as it was derived, if all that the state knows of it agrees."""
    state, closing = cell.state, action.closing
    _need_turn(state, closing.period, ctx.now)
    last = state.periods[max(state.periods)].ordinal if state.periods else 0
    if not last < closing.ordinal <= state.ordinal:
        raise InvalidInput(f"ordinal {closing.ordinal} is not between {last} and {state.ordinal}")
    if closing.terms_digest != terms_digest(state):
        raise Conflict("prices or customers have changed since the month was derived")
    if closing.price_list_versions != versions_before(state, month_bounds(closing.period)[1]):
        raise InvalidInput("the price lists named are not those in force in the month")
    for invoice in closing.invoices:
        _need_sums(state, closing.period, invoice)
    if len({invoice.invoice_id for invoice in closing.invoices}) < len(closing.invoices):
        raise InvalidInput("a customer has one invoice a month")
    reply = {"period": closing.period, "invoices": len(closing.invoices)}
    return [s.PeriodClosed(closing=closing)], dict(reply)


def need_closable(state: State, month: str, now: Micros) -> None:
    """Return if it is a month's turn and time to be closed.

    Raises:
        Conflict: it is closed, another comes first, or late reports are still waited for.
    """
    _need_turn(state, month, now)


def _need_turn(state: State, month: str, now: Micros) -> None:
    if month in state.periods:
        raise Conflict(f"the month {month} is closed")
    if state.periods and month != (due := next_month(max(state.periods))):
        raise Conflict(f"months are closed in order: the next is {due}")
    _, end = month_bounds(month)
    grace_hours = state.billing.grace_hours
    if now < end + grace_hours * HOUR:
        raise Conflict(
            f"the month {month} can be closed {grace_hours} hours after its end: until then late "
            "reports are waited for",
            closable_at=end + grace_hours * HOUR,
        )


def invoice_id_of(month: str, customer_id: str) -> str:
    """Return the id of a customer's invoice for a month."""
    return f"{month}.{customer_id}"


def _need_sums(state: State, month: str, invoice: s.ClosedInvoice) -> None:
    """Refuse an invoice of nobody, in another currency, or whose sums do not add up."""
    customer = find_customer(state, invoice.customer_id)
    if invoice.invoice_id != invoice_id_of(month, customer.customer_id):
        raise InvalidInput(f"{invoice.invoice_id} is not the invoice's id")
    if invoice.currency != customer.currency:
        raise InvalidInput(f"the customer pays in {customer.currency}")
    with localcontext(prec=DIGITS_MAX):
        due = Decimal(invoice.net) + Decimal(invoice.tax)
        for credit_id, used in invoice.credits.items():
            credit = state.credits.get(credit_id)
            if credit is None or credit.customer_id != customer.customer_id:
                raise InvalidInput(f"the customer has no credit {credit_id}")
            if not 0 < Decimal(used) <= Decimal(credit.remaining):
                raise InvalidInput(f"the credit {credit_id} has {credit.remaining} left")
            due -= Decimal(used)
        unit = Decimal(1).scaleb(-decimals(customer.currency))
        if Decimal(invoice.total) != due.quantize(unit, rounding=ROUND_HALF_UP):
            raise InvalidInput(f"the sums of {invoice.invoice_id} do not add up")


def issue_invoice(cell: Cell, ctx: Context, action: s.IssueInvoice) -> Decision:
    """Give invoices the next numbers; those that have one keep it."""
    state = cell.state
    wanted = [_find(state, each) for each in dict.fromkeys((action.invoice_id, *action.also))]
    if any(invoice.period != wanted[0].period for invoice in wanted):
        raise InvalidInput("invoices that are issued together are of one month")
    facts: list[Fact] = []
    numbers: dict[str, str] = {}
    for invoice in wanted:
        if invoice.status == "voided":
            raise Conflict(f"the invoice {invoice.invoice_id} was voided")
        number = invoice.number
        if invoice.status != "issued":
            year, count = month_of(ctx.now)[:4], state.invoices_issued + len(facts) + 1
            number = f"{state.billing.prefix}{year}-{count:06d}"
            due_at = ctx.now + state.billing.payment_days * DAY
            facts.append(
                s.InvoiceIssued(invoice_id=invoice.invoice_id, number=number, due_at=due_at)
            )
        numbers[invoice.invoice_id] = number
    reply = {"invoice_id": action.invoice_id, "number": numbers[action.invoice_id]}
    return facts, reply | ({"numbers": numbers} if action.also else {})


def void_invoice(cell: Cell, ctx: Context, action: s.VoidInvoice) -> Decision:
    """Let an invoice be owed no longer."""
    invoice = _find(cell.state, action.invoice_id)
    reply: dict[str, object] = {"invoice_id": invoice.invoice_id}
    if invoice.status == "voided":
        return [], reply
    return [s.InvoiceVoided(invoice_id=invoice.invoice_id, reason=action.reason)], reply


def correct_line(cell: Cell, ctx: Context, action: s.CorrectLine) -> Decision:
    """Record what a line should have been; the next month to be closed has it."""
    state = cell.state
    invoice = _find(state, action.invoice_id)
    if invoice.status == "voided":
        raise Conflict("the invoice was voided: nothing of it is owed")
    if len(state.corrections) >= CORRECTIONS_MAX:
        raise Conflict(f"a cell has at most {CORRECTIONS_MAX} corrections")
    correction = s.LineCorrection(
        correction_id=ctx.new_id(),
        invoice_id=invoice.invoice_id,
        line=action.line,
        amount=action.amount,
        reason=action.reason,
        recorded_at=ctx.now,
    )
    reply: dict[str, object] = {"correction_id": correction.correction_id}
    return [s.LineCorrected(correction=correction)], reply


def _find(state: State, invoice_id: str) -> s.Invoice:
    invoice = state.invoices.get(invoice_id)
    if invoice is None:
        raise NotFound(f"there is no invoice {invoice_id!r}")
    return invoice


def versions_before(state: State, end: Micros) -> dict[str, int]:
    """Return the newest version of each price list that is valid before a time."""
    found = {
        name: max((v.version for v in versions if v.valid_from < end), default=0)
        for name, versions in state.price_lists.items()
    }
    return {name: version for name, version in found.items() if version}


def terms_digest(state: State) -> str:
    """Return the SHA-256 (hex) of all that decides, besides usage, what is owed."""
    parts = {
        "price_lists": state.price_lists,
        "customers": state.customers,
        "payers": state.payers,
        "credits": state.credits,
        "corrections": state.corrections,
        "periods": state.periods,
    }
    return hashlib.sha256(_encode(parts)).hexdigest()


# Evolve


def billing_set(cell: Cell, fact: s.BillingSet, at: Micros) -> None:
    cell.state.billing = fact.settings


def period_closed(cell: Cell, fact: s.PeriodClosed, at: Micros) -> None:
    state, closing = cell.state, fact.closing
    state.periods[closing.period] = replace(closing, invoices=())
    for closed in closing.invoices:
        state.invoices[closed.invoice_id] = invoice_of(closed, closing.period, at)
        state.credits_used[closed.invoice_id] = dict(closed.credits)
        _use(state, closed.credits, -1)


def invoice_of(closed: s.ClosedInvoice, period: str, at: Micros) -> s.Invoice:
    """Return an invoice as it is when its month has been closed."""
    return s.Invoice(
        invoice_id=closed.invoice_id,
        customer_id=closed.customer_id,
        period=period,
        currency=closed.currency,
        net=closed.net,
        tax=closed.tax,
        total=closed.total,
        status="closed",
        closed_at=at,
    )


def _use(state: State, used: dict[str, str], sign: int) -> None:
    with localcontext(prec=DIGITS_MAX):
        for credit_id, amount in used.items():
            credit = state.credits[credit_id]
            remaining = Decimal(credit.remaining) + sign * Decimal(amount)
            state.credits[credit_id] = replace(credit, remaining=f"{remaining:f}")


def invoice_issued(cell: Cell, fact: s.InvoiceIssued, at: Micros) -> None:
    state = cell.state
    state.invoices[fact.invoice_id] = issued(state.invoices[fact.invoice_id], fact, at)
    state.invoices_issued += 1


def issued(invoice: s.Invoice, fact: s.InvoiceIssued, at: Micros) -> s.Invoice:
    """Return the invoice as it is after it was issued."""
    return replace(invoice, status="issued", number=fact.number, issued_at=at, due_at=fact.due_at)


def invoice_voided(cell: Cell, fact: s.InvoiceVoided, at: Micros) -> None:
    state = cell.state
    state.invoices[fact.invoice_id] = voided(state.invoices[fact.invoice_id], fact, at)
    _use(state, state.credits_used.pop(fact.invoice_id), 1)


def voided(invoice: s.Invoice, fact: s.InvoiceVoided, at: Micros) -> s.Invoice:
    """Return the invoice as it is after it was voided."""
    return replace(invoice, status="voided", voided_at=at, void_reason=fact.reason)


def line_corrected(cell: Cell, fact: s.LineCorrected, at: Micros) -> None:
    cell.state.corrections[fact.correction.correction_id] = fact.correction
