"""Who pays: in one currency, by a list there is, and never for what a closed month has billed."""

import pytest

from engine.domain.billing.customers import closed_through
from schemas.billing import (
    AssignProject,
    CreateBudget,
    CreateCustomer,
    Discount,
    GrantCredit,
    PassBudget,
    PublishPriceList,
    UpdateCustomer,
)
from schemas.units import DAY
from tests.engine.domain.test_prices import REST, a_rule
from tests.engine.world import SYSTEM, World


@pytest.fixture
def world():
    world = World()
    world.ok(world.admin, PublishPriceList(currency="EUR", rules=(a_rule(), *REST)))
    dollars = PublishPriceList(name="us", currency="USD", rules=(a_rule(), *REST))
    world.ok(world.admin, dollars)
    return world


def a_customer(world, **fields):
    action = CreateCustomer(**{"name": "Acme", "currency": "EUR", **fields})
    return world.ok(world.admin, action)["customer_id"]


def payers(world, project_id):
    return [(p.customer_id, p.since) for p in world.cell.state.payers.get(project_id, ())]


def test_a_customer_has_versions(world):
    acme = a_customer(world, tax_percent="19", discounts=(Discount(percent="5"),))

    world.ok(world.admin, UpdateCustomer(customer_id=acme, tax_percent="20"))
    world.ok(world.admin, UpdateCustomer(customer_id=acme, tax_percent="20"))
    later = world.now + DAY
    world.ok(world.admin, UpdateCustomer(customer_id=acme, name="Acme Ltd", valid_from=later))
    early = UpdateCustomer(customer_id=acme, name="Acme", valid_from=world.now)

    assert "before those they follow" in world.refused(world.admin, early).reason
    versions = world.cell.state.customers[acme]
    assert [(v.version, v.name, v.tax_percent) for v in versions] == [
        (1, "Acme", "19"),
        (2, "Acme", "20"),
        (3, "Acme Ltd", "20"),
    ]
    assert versions[2].discounts == (Discount(percent="5"),)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"currency": "USD"}, "is in EUR, and the customer in USD"),
        ({"price_list": "none"}, "there is no price list"),
    ],
)
def test_a_customer_pays_by_a_list_in_its_currency(world, fields, said):
    action = CreateCustomer(**{"name": "Acme", "currency": "EUR", **fields})

    assert said in world.refused(world.admin, action).reason
    acme = a_customer(world)
    moved = UpdateCustomer(customer_id=acme, price_list="us")
    assert "the customer in EUR" in world.refused(world.admin, moved).reason


def test_a_project_is_paid_for_by_one_after_another(world):
    acme, other = a_customer(world), a_customer(world, name="Other")
    project = world.admin.project_id

    world.ok(world.admin, AssignProject(project_id=project, customer_id=acme))
    first = world.now
    world.ok(world.admin, AssignProject(project_id=project, customer_id=acme))
    world.ok(world.admin, AssignProject(project_id=project, customer_id=other))
    second = world.now

    assert payers(world, project) == [(acme, 0), (other, second)]
    assert first < second
    world.ok(world.admin, AssignProject(project_id=project, customer_id="", since=first))
    assert payers(world, project) == [(acme, 0), ("", first)]


def test_nobody_pays_for_what_is_not_there(world):
    acme = a_customer(world)
    project = world.admin.project_id

    for action in (
        AssignProject(project_id="no", customer_id=acme),
        AssignProject(project_id=project, customer_id="no"),
        UpdateCustomer(customer_id="no", name="n"),
        GrantCredit(customer_id="no", amount="1", reason="r"),
    ):
        assert world.refused(world.admin, action).status == 404
    assert world.ok(world.admin, AssignProject(project_id=project, customer_id=""))
    assert payers(world, project) == []


@pytest.mark.parametrize("amount", ["0", "0.00", "1000000000001"])
def test_a_credit_is_a_sum_of_money(world, amount):
    acme = a_customer(world)
    action = GrantCredit(customer_id=acme, amount=amount, reason="sorry")

    assert "a credit is more than nothing" in world.refused(world.admin, action).reason


def test_a_budget_is_told_of_once_a_month_for_each_share(world):
    acme = a_customer(world)
    create = CreateBudget(name="b", customer_id=acme, amount="100", thresholds=(100, 50, 50))
    budget = world.ok(world.admin, create)["budget_id"]

    def told(month, threshold, amount):
        action = PassBudget(budget_id=budget, month=month, threshold=threshold, amount=amount)
        return [fact.threshold for fact in world.submit(SYSTEM, action).facts]

    assert world.cell.state.budgets[budget].thresholds == (50, 100)
    assert told("2026-10", 50, "50.00") == [50]
    assert told("2026-10", 50, "60") == []
    assert told("2026-10", 100, "99.99") == []  # it is not so
    assert told("2026-10", 100, "100") == [100]
    assert told("2026-10", 50, "100") == told("2026-09", 100, "200") == []
    assert told("2026-11", 80, "90") == []  # no threshold of it
    assert told("2026-11", 50, "50") == [50]
    for amount in ("0", "1000000000001"):
        nothing = CreateBudget(name="b", customer_id=acme, amount=amount)
        assert "more than nothing" in world.refused(world.admin, nothing).reason
    passed = PassBudget(budget_id=budget, month="2026-12", threshold=50, amount="50")
    assert world.refused(world.admin, passed).status == 403


def test_only_administrators_say_who_pays(world):
    member = world.member("demo")
    acme = a_customer(world)

    for action in (
        CreateCustomer(name="Mine", currency="EUR"),
        UpdateCustomer(customer_id=acme, name="Mine"),
        AssignProject(project_id=member.project_id, customer_id=acme),
        GrantCredit(customer_id=acme, amount="5", reason="me"),
    ):
        assert world.refused(member, action).status == 403
    assert closed_through(world.cell.state) == 0
