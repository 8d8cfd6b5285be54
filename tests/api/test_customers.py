"""Customers: kept by administrators, read by auditors, and none of a project's business."""

import pytest

from tests.api.conftest import Api, Cloud, fresh


@pytest.fixture(scope="module")
def acme(cloud: Cloud) -> str:
    action = {"type": "CreateCustomer", "name": fresh("acme"), "currency": "EUR"}
    terms = {"tax_percent": "19", "tax_name": "VAT", "zone": "Europe/Berlin"}
    return submitted(cloud.admin, action | terms)["customer_id"]


def submitted(api: Api, action: dict) -> dict:
    reply = api("POST", "/v1/actions", action)
    assert reply.status == 200, reply
    return reply.body["reply"]


def test_a_customer_pays_for_projects_and_has_credits(cloud: Cloud, acme: str):
    project = cloud.admin("GET", "/identity/v3/projects?name=demo").body["projects"][0]["id"]
    assign = {"type": "AssignProject", "project_id": project, "customer_id": acme}
    submitted(cloud.admin, assign)
    credit = {"type": "GrantCredit", "customer_id": acme, "amount": "5.00", "reason": "sorry"}
    submitted(cloud.admin, credit)

    shown = cloud.admin("GET", f"/v1/customers/{acme}").body["customer"]
    listed = cloud.admin("GET", "/v1/customers").body["customers"]

    assert shown["projects"] == [{"project_id": project, "since": 0}]
    assert [(c["amount"], c["remaining"]) for c in shown["credits"]] == [("5.00", "5.00")]
    assert (shown["tax_percent"], shown["zone"]) == ("19", "Europe/Berlin")
    assert acme in [customer["id"] for customer in listed]


def test_a_project_is_billed_by_the_prices_of_who_pays(cloud: Cloud):
    rules = [
        {"sku": meter, "meter": meter, "unit": unit, "price": "7"}
        for meter, unit in (("compute.vcpu", "Core-Hours"), ("compute.memory", "GiB-Hours"))
    ]
    prices = {"name": fresh("dear"), "currency": "EUR", "rules": rules}
    free = ["compute.disk", "image.size"]
    submitted(cloud.admin, {"type": "PublishPriceList", **prices, "free": free})
    action = {"type": "CreateCustomer", "name": fresh("rich"), "currency": "EUR"}
    customer = submitted(cloud.admin, action | {"price_list": prices["name"]})["customer_id"]
    stranger = cloud.stranger()
    trial = {"type": "CreateServer", "name": "x", "networks": []}
    trial |= {"flavor_id": "42", "image_id": cloud.image_id()}

    def costs():
        (bill,) = stranger("GET", "/v1/bill").body["bills"]
        tried = stranger("POST", "/v1/actions?dry_run=1", trial).body
        return bill["price_list"], tried["cost_per_month"]["price_list"]

    before = costs()
    project = stranger("GET", "/identity/v3/auth/projects").body["projects"][0]["id"]
    paid = {"type": "AssignProject", "project_id": project, "customer_id": customer}
    submitted(cloud.admin, paid)

    assert before == ("standard", "standard")
    assert costs() == (prices["name"], prices["name"])
    assert cloud.admin("GET", f"/v1/bill?price_list={prices['name']}").status == 200
    others = cloud.demo("GET", f"/v1/bill?price_list={prices['name']}")
    assert others.status == 404


def test_a_project_does_not_learn_of_customers(cloud: Cloud, acme: str):
    assert cloud.demo("GET", "/v1/customers").status == 403
    assert cloud.demo("GET", f"/v1/customers/{acme}").status == 403
    mine = {"type": "UpdateCustomer", "customer_id": acme, "discounts": [{"percent": "100"}]}
    assert cloud.demo("POST", "/v1/actions", mine).status == 403


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("zone", "Europe/Nowhere"),
        ("zone", "../../etc/passwd"),
        ("tax_percent", "101"),
        ("tax_percent", "-1"),
        ("currency", "euro"),
        ("discounts", [{"percent": "1e2"}]),
        ("name", ""),
    ],
)
def test_terms_without_sense_are_refused(cloud: Cloud, field, value):
    action = {"type": "CreateCustomer", "name": "x", "currency": "EUR", field: value}

    assert cloud.admin("POST", "/v1/actions", action).status == 400


def test_customers_are_kept_from_the_command_line(cloud: Cloud):
    def run(*arguments: str) -> str:
        done = cloud.up.run("customer", *arguments)
        assert done.code == 0, done.errors
        return done.output

    name = fresh("shop")
    run("create", name, "--currency", "EUR", "--tax", "19:VAT", "--discount", "10")
    run("set", name, "--discount", "vcpu=12.5", "--zone", "Asia/Tokyo")
    told = run("assign", name, "admin")
    run("credit", name, "7.50", "--reason", "a bad day")

    shown = run("show", name)
    assert "pays for project admin from" in told
    assert '"sku": "vcpu"' in shown
    assert "7.50" in shown
    assert name in run("list")
