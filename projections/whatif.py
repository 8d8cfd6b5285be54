"""What a month would come to: under another price list, or if all that is held stays. Pure.

The same rows by the same code as an invoice, from the same past: nothing is estimated but what the
question itself supposes.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal, localcontext

from msgspec import Struct

from engine.domain.billing.periods import DIGITS_MAX
from engine.domain.billing.prices import need_sound_list
from projections.ledger import Past, Prices, terms_of
from projections.pricing import text
from schemas.billing import Customer, PriceList, PublishPriceList

type Totals = Callable[[Prices | None, Collection[str]], Mapping[str, Decimal]]


class Compared(Struct, frozen=True, kw_only=True):
    """What a customer's use comes to, and what it would; before credits, corrections and tax.

    ``percent`` is the difference in hundredths of what it comes to, for reading; "" where that is
    nothing.
    """

    customer_id: str
    currency: str
    before: str
    after: str
    difference: str
    percent: str


class WhatIf(Struct, frozen=True, kw_only=True):
    """All customers, those who would save most first. Who pays in another currency is left out."""

    month: str
    customers: tuple[Compared, ...]
    before: str
    after: str
    winners: int
    losers: int
    left_out: tuple[str, ...]


class Forecast(Struct, frozen=True, kw_only=True):
    """What a customer's month comes to so far, and will if all that is held now stays."""

    customer_id: str
    currency: str
    so_far: str
    forecast: str


def what_if(past: Past, month: str, draft: PublishPriceList, totals: Totals) -> WhatIf:
    """Compare a month under the prices it has with the same under a draft.

    The draft holds for the whole month, or from its ``valid_from`` on. ``totals`` returns what each
    customer's use comes to, by its own prices or by others, some customers left out.

    Raises:
        InvalidInput: the draft would not be published.
    """
    need_sound_list(draft, past.definitions)
    left_out = tuple(
        sorted(c for c, v in past.state.customers.items() if v[-1].currency != draft.currency)
    )

    def drafted(customer: Customer) -> Sequence[PriceList]:
        versions = past.state.price_lists[customer.price_list]
        valid_from = draft.valid_from or 0
        return (
            *(version for version in versions if version.valid_from < valid_from),
            PriceList(
                name=draft.name,
                version=versions[-1].version + 1,
                currency=draft.currency,
                valid_from=valid_from,
                rules=draft.rules,
                free=draft.free,
            ),
        )

    now, then = totals(None, left_out), totals(drafted, left_out)
    compared = [
        _compared(terms_of(past, customer_id, month), now[customer_id], then[customer_id])
        for customer_id in sorted(now)
    ]
    compared.sort(key=lambda each: (Decimal(each.difference), each.customer_id))
    with localcontext(prec=DIGITS_MAX):
        return WhatIf(
            month=month,
            customers=tuple(compared),
            before=text(sum((Decimal(each.before) for each in compared), Decimal(0))),
            after=text(sum((Decimal(each.after) for each in compared), Decimal(0))),
            winners=sum(Decimal(each.difference) < 0 for each in compared),
            losers=sum(Decimal(each.difference) > 0 for each in compared),
            left_out=left_out,
        )


def forecast(
    past: Past, month: str, so_far: Mapping[str, Decimal], all_of_it: Mapping[str, Decimal]
) -> tuple[Forecast, ...]:
    """Return what a month will come to for each customer, beside what it comes to so far."""
    return tuple(
        Forecast(
            customer_id=customer_id,
            currency=terms_of(past, customer_id, month).currency,
            so_far=text(so_far.get(customer_id, Decimal(0))),
            forecast=text(amount),
        )
        for customer_id, amount in sorted(all_of_it.items())
    )


def _compared(customer: Customer, before: Decimal, after: Decimal) -> Compared:
    with localcontext(prec=DIGITS_MAX):
        difference = after - before
        percent = (difference * 100 / before).quantize(Decimal("0.01")) if before else None
    return Compared(
        customer_id=customer.customer_id,
        currency=customer.currency,
        before=text(before),
        after=text(after),
        difference=text(difference),
        percent="" if percent is None else text(percent),
    )
