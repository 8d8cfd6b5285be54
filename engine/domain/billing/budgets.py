"""Budgets: what is told, once a month for each threshold."""

from decimal import Decimal

from msgspec.structs import replace

from engine.domain.billing.customers import CREDIT_MAX, find_customer
from engine.domain.context import Context
from engine.domain.identity.found import find_project
from engine.domain.state import Cell
from schemas import billing as s
from schemas.envelope import Fact
from schemas.errors import Conflict, InvalidInput, NotFound
from schemas.units import Micros

type Decision = tuple[list[Fact], dict[str, object]]

BUDGETS_MAX = 1000


def create_budget(cell: Cell, ctx: Context, action: s.CreateBudget) -> Decision:
    """Watch what a customer or a project spends."""
    customer = find_customer(cell.state, action.customer_id)
    if action.project_id:
        find_project(cell, ctx, action.project_id)
    if len(cell.state.budgets) >= BUDGETS_MAX:
        raise Conflict(f"a cell has at most {BUDGETS_MAX} budgets")
    if not 0 < Decimal(action.amount) <= CREDIT_MAX:
        raise InvalidInput(f"a budget is more than nothing, and at most {CREDIT_MAX}")
    budget = s.Budget(
        budget_id=ctx.new_id(),
        name=action.name,
        customer_id=customer.customer_id,
        project_id=action.project_id,
        amount=action.amount,
        thresholds=tuple(sorted(set(action.thresholds))),
    )
    return [s.BudgetCreated(budget=budget)], {"budget_id": budget.budget_id}


def delete_budget(cell: Cell, ctx: Context, action: s.DeleteBudget) -> Decision:
    """Watch no more."""
    _find(cell, action.budget_id)
    return [s.BudgetDeleted(budget_id=action.budget_id)], {}


def pass_budget(cell: Cell, ctx: Context, action: s.PassBudget) -> Decision:
    """Record that a threshold was passed; nothing if that, or a higher one, was told this month."""
    budget = _find(cell, action.budget_id)
    if action.threshold not in budget.thresholds:
        raise InvalidInput(f"the budget has no threshold of {action.threshold} %")
    if Decimal(action.amount) * 100 < Decimal(budget.amount) * action.threshold:
        raise InvalidInput(f"{action.amount} is less than {action.threshold} % of the budget")
    if not is_news(budget, action.month, action.threshold):
        return [], {}
    fact = s.BudgetPassed(
        budget_id=budget.budget_id,
        month=action.month,
        threshold=action.threshold,
        amount=action.amount,
    )
    return [fact], {}


def is_news(budget: s.Budget, month: str, threshold: int) -> bool:
    """Return whether nobody was told yet that a month has come so far."""
    return month > budget.month or (month == budget.month and threshold > budget.reached)


def _find(cell: Cell, budget_id: str) -> s.Budget:
    budget = cell.state.budgets.get(budget_id)
    if budget is None:
        raise NotFound(f"there is no budget {budget_id!r}")
    return budget


# Evolve


def budget_created(cell: Cell, fact: s.BudgetCreated, at: Micros) -> None:
    cell.state.budgets[fact.budget.budget_id] = fact.budget


def budget_deleted(cell: Cell, fact: s.BudgetDeleted, at: Micros) -> None:
    del cell.state.budgets[fact.budget_id]


def budget_passed(cell: Cell, fact: s.BudgetPassed, at: Micros) -> None:
    budgets = cell.state.budgets
    budgets[fact.budget_id] = passed(budgets[fact.budget_id], fact)


def passed(budget: s.Budget, fact: s.BudgetPassed) -> s.Budget:
    """Return the budget as it is after a threshold was passed."""
    return replace(budget, month=fact.month, reached=fact.threshold)
