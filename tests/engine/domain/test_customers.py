"""Who pays: in one currency, by a list there is, and never for what a closed month has billed."""

import pytest

from engine.domain.billing.customers import closed_through
from schemas.billing import (
    AssignProject,
    CreateCustomer,
    Discount,
    GrantCredit,
    PublishPriceList,
    UpdateCustomer,
)
from schemas.units import DAY
from tests.engine.domain.test_prices import REST, a_rule
from tests.engine.world import World


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
