"""Budgets: how much a customer means to spend in a month, and when it is to be told."""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.billing.period import Money, Month
from schemas.billing.prices import DecimalText
from schemas.ids import Id, IdOrNone
from schemas.units import Name

Percent = Annotated[int, Meta(ge=1, le=1000)]
Thresholds = Annotated[tuple[Percent, ...], Meta(min_length=1, max_length=20)]


class Budget(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a customer, or one project of it, means to spend in each month, before tax.

    ``thresholds`` are percents of ``amount``, rising. In ``month``, the last in which one was
    passed, ``reached`` is the highest of those.
    """

    budget_id: str
    name: str
    customer_id: str
    project_id: str = ""
    amount: str
    thresholds: tuple[int, ...]
    month: str = ""
    reached: int = 0


class CreateBudget(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Be told when what a customer, or one of its projects, uses in a month passes a share."""

    name: Name
    customer_id: Id
    project_id: IdOrNone = ""
    amount: DecimalText
    thresholds: Thresholds = (50, 80, 100)


class DeleteBudget(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Be told no more."""

    budget_id: Id


class PassBudget(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """The archiver: a month has come to ``amount``, and so to ``threshold`` percent of a budget."""

    budget_id: Id
    month: Month
    threshold: Percent
    amount: Money


type BudgetAction = CreateBudget | DeleteBudget | PassBudget


class BudgetCreated(
    Struct, frozen=True, kw_only=True, tag="billing.budget.created.v1", tag_field="type"
):
    """What is used is compared with it from now on. Not metered."""

    budget: Budget


class BudgetDeleted(
    Struct, frozen=True, kw_only=True, tag="billing.budget.deleted.v1", tag_field="type"
):
    """Nothing is compared with it any more. Not metered."""

    budget_id: str


class BudgetPassed(
    Struct, frozen=True, kw_only=True, tag="billing.budget.passed.v1", tag_field="type"
):
    """A month has come to a share of the budget: told once for each share. Not metered."""

    budget_id: str
    month: str
    threshold: int
    amount: str


type BudgetFact = BudgetCreated | BudgetDeleted | BudgetPassed
