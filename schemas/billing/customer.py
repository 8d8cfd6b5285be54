"""Customers: who pays for which projects, in which currency, by which prices and taxes.

A customer has versions, each valid from a time on: the terms of a month are those in force at its
end. Nothing here may change a month that is closed. What identifies a customer in rows and digests
is its opaque id; names and addresses are rendered, never hashed.
"""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.billing.prices import STANDARD, Currency, DecimalText
from schemas.ids import Id, IdOrNone, ProjectId
from schemas.units import LongText, Micros, Name, Text

# Percents have no sign, and are no more than a hundred.
Percent = Annotated[str, Meta(pattern=r"^(100(\.0{1,6})?|[0-9]{1,2}(\.[0-9]{1,6})?)\Z")]
# A name of the IANA time zone database; whether there is such a zone is checked at the edge.
Zone = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_+/-]*\Z")]


class Discount(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """So many percent off, of one sku or, without one, of all."""

    percent: Percent
    sku: IdOrNone = ""


Discounts = Annotated[tuple[Discount, ...], Meta(max_length=100)]


class Customer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of a customer: the terms from ``valid_from`` on.

    Of several discounts for one sku the first counts. ``zone`` is what times are shown in.
    """

    customer_id: str
    version: int
    name: str
    currency: str
    price_list: str
    valid_from: Micros
    discounts: tuple[Discount, ...] = ()
    tax_percent: str = "0"
    tax_name: str = ""
    zone: str = "UTC"
    address: str = ""
    tax_id: str = ""
    reference: str = ""  # the customer's own, as a purchase order


class CreateCustomer(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Have somebody pay for projects (see AssignProject). The currency is the price list's."""

    name: Name
    price_list: Name = STANDARD
    currency: Currency
    discounts: Discounts = ()
    tax_percent: Percent = "0"
    tax_name: Text = ""
    zone: Zone = "UTC"
    address: LongText = ""
    tax_id: Text = ""
    reference: Text = ""


class UpdateCustomer(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Change a customer's terms; what is None stays. The currency stays for ever.

    ``valid_from`` None means from this commit's time on; it lies in no closed month.
    """

    customer_id: Id
    name: Name | None = None
    price_list: Name | None = None
    discounts: Discounts | None = None
    tax_percent: Percent | None = None
    tax_name: Text | None = None
    zone: Zone | None = None
    address: LongText | None = None
    tax_id: Text | None = None
    reference: Text | None = None
    valid_from: Micros | None = None


class Payer(Struct, frozen=True, kw_only=True):
    """Who pays for a project from a time on, until the next; "" is nobody."""

    customer_id: str
    since: Micros


class AssignProject(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Have a customer pay for a project from ``since`` on; "" lets nobody pay.

    ``since`` None means from the beginning where nobody has paid for it yet, else from this
    commit's time on; in either case no earlier than the end of the last closed month.
    """

    project_id: Id
    customer_id: IdOrNone
    since: Micros | None = None


class Credit(Struct, frozen=True, kw_only=True):
    """Money that a customer need not pay: taken off its next invoices, before tax."""

    credit_id: str
    customer_id: str
    amount: str
    remaining: str
    reason: str
    granted_at: Micros


class GrantCredit(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Take an amount, in the customer's currency, off its next invoices."""

    customer_id: Id
    amount: DecimalText
    reason: Name


type CustomerAction = CreateCustomer | UpdateCustomer | AssignProject | GrantCredit


class CustomerSaved(
    Struct, frozen=True, kw_only=True, tag="billing.customer.saved.v1", tag_field="type"
):
    """From ``valid_from`` on, these are the customer's terms. Not metered."""

    customer: Customer


class ProjectAssigned(
    Struct, frozen=True, kw_only=True, tag="billing.project.assigned.v1", tag_field="type"
):
    """What the project uses from ``since`` on is the customer's to pay. Not metered."""

    project_id: ProjectId
    customer_id: str
    since: Micros


class CreditGranted(
    Struct, frozen=True, kw_only=True, tag="billing.credit.granted.v1", tag_field="type"
):
    """The amount is taken off what the customer owes next. Not metered."""

    credit: Credit


type CustomerFact = CustomerSaved | ProjectAssigned | CreditGranted
