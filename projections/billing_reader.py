"""Reads about money: price lists, customers, closed months, and what their invoices come to."""

from projections.billing import (
    BUDGETS,
    CORRECTIONS,
    CREDITS,
    CREDITS_USED,
    CUSTOMERS,
    INVOICES,
    PAYERS,
    PERIODS,
    PRICE_LISTS,
    ROW,
    SETTINGS,
    Payers,
)
from projections.connection import Connections
from projections.query import BY_NAME, Query
from schemas.billing import (
    BillingSettings,
    Budget,
    Closing,
    Credit,
    Customer,
    Invoice,
    LineCorrection,
    PriceList,
)


class BillingReader(Connections):
    """See ``reader.Reader``."""

    def price_lists(self, *, name: str | None = None) -> list[PriceList]:
        """Return price lists by name and version."""
        query = Query(PRICE_LISTS, "name || ' ' || version").equal(name=name)
        return self.page(query, (("name", False), ("version", False)))

    def customer(self, customer_id: str) -> Customer | None:
        """Return a customer's newest version."""
        return self.one(CUSTOMERS, customer_id)

    def customers(
        self, *, name: str | None = None, marker: str | None = None, limit: int | None = None
    ) -> list[Customer]:
        """Return customers by name."""
        return self.page(Query(CUSTOMERS).equal(name=name), BY_NAME, marker, limit)

    def payers(self, customer_id: str) -> list[Payers]:
        """Return the projects that a customer is the last to pay for."""
        return self.page(Query(PAYERS).equal(customer_id=customer_id), (("id", False),))

    def payers_of(self, project_id: str) -> Payers | None:
        """Return who pays for a project; None if nobody ever did."""
        return self.one(PAYERS, project_id)

    def credits(self, customer_id: str) -> list[Credit]:
        """Return a customer's credits, the oldest first."""
        return self.page(Query(CREDITS).equal(customer_id=customer_id), (("granted_at", False),))

    def credits_used(self, invoice_id: str) -> dict[str, str]:
        """Return how much of which credit an invoice uses."""
        used = self.one(CREDITS_USED, invoice_id)
        return {} if used is None else used.credits

    def corrections(self, invoice_id: str) -> list[LineCorrection]:
        """Return what lines of an invoice should have been, the oldest first."""
        query = Query(CORRECTIONS).equal(invoice_id=invoice_id)
        return self.page(query, (("recorded_at", False),))

    def invoice(self, invoice_id: str) -> Invoice | None:
        """Return an invoice of a closed month, by its id."""
        return self.one(INVOICES, invoice_id)

    def invoices(
        self,
        *,
        customer_id: str | None = None,
        period: str | None = None,
        status: str | None = None,
        number: str | None = None,
        marker: str | None = None,
        limit: int | None = None,
    ) -> list[Invoice]:
        """Return invoices, those of the newest month first."""
        query = Query(INVOICES).equal(
            customer_id=customer_id, period=period, status=status, number=number
        )
        return self.page(query, (("period", True),), marker, limit)

    def periods(self) -> list[Closing]:
        """Return what closed months were closed with (but for their invoices), oldest first."""
        return self.page(Query(PERIODS), (("id", False),))

    def budgets(self, *, marker: str | None = None, limit: int | None = None) -> list[Budget]:
        """Return budgets by name, with how far the last month came."""
        return self.page(Query(BUDGETS), BY_NAME, marker, limit)

    def billing_settings(self) -> BillingSettings:
        """Return what holds for all invoices."""
        return self.one(SETTINGS, ROW) or BillingSettings()
