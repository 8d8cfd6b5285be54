"""Price lists as administrators publish and people read them."""

import json

from tests.api.conftest import Cloud

RULES = [
    {"sku": "vcpu", "meter": "compute.vcpu", "unit": "Core-Hours", "price": "0.01"},
    {"sku": "memory", "meter": "compute.memory", "unit": "GiB-Hours", "price": "0.005"},
    {
        "sku": "disk",
        "meter": "compute.disk",
        "unit": "GiB-Hours",
        "model": "graduated",
        "tiers": [{"up_to": "100", "price": "0.0002"}, {"price": "0.0001"}],
    },
]
LIST = {"name": "special", "currency": "EUR", "rules": RULES, "free": ["image.size"]}


def test_a_list_is_tried_published_and_shown(cloud: Cloud, tmp_path):
    up, file = cloud.up, tmp_path / "special.json"
    file.write_text(json.dumps({**LIST, "valid_from": "2026-10-01T00:00:00Z"}))

    assert "would be published" in up.run("price-list", "publish", str(file), "--dry-run").output
    assert cloud.admin("GET", "/v1/price-lists/special").status == 404
    published = up.run("price-list", "publish", str(file))
    assert published.output == "published special, version 1\n"

    shown = up.run("price-list", "show", "special").output
    assert "from 2026-10-01T00:00:00.000000Z on" in shown
    assert "0.0002 up to 100, 0.0001 beyond" in shown
    assert "Free: image.size" in shown
    assert up.json("price-list", "show", "special", "--version", "1")["rules"][0]["price"] == "0.01"
    assert up.run("price-list", "show", "special", "--version", "2").code == 1
    assert {each["name"] for each in up.json("price-list", "list")} == {"special", "standard"}


def test_a_list_with_a_gap_is_refused_and_says_where(cloud: Cloud, tmp_path):
    file = tmp_path / "gap.json"
    match = {"flavor": {"any_of": ["small"]}}
    file.write_text(json.dumps({**LIST, "rules": [{**RULES[0], "match": match}, *RULES[1:]]}))

    tried = cloud.up.run("price-list", "publish", str(file), "--dry-run")
    refused = cloud.up.run("price-list", "publish", str(file))

    assert tried.code == refused.code == 1
    assert "compute.vcpu" in tried.output
    assert "compute.vcpu" in refused.errors


def test_who_sees_no_customers_sees_the_standard_list_alone(cloud: Cloud):
    listed = cloud.demo("GET", "/v1/price-lists").body["price_lists"]

    assert {each["name"] for each in listed} == {"standard"}
    assert cloud.demo("GET", "/v1/price-lists/standard").status == 200
    assert cloud.demo("GET", "/v1/price-lists/special").status == 404


def test_a_version_that_is_not_in_force_yet_is_withdrawn(cloud: Cloud, tmp_path):
    up, file = cloud.up, tmp_path / "typo.json"
    file.write_text(json.dumps({**LIST, "name": "typo"}))
    assert up.run("price-list", "publish", str(file)).code == 0
    far, near = "2098-01-01T00:00:00Z", "2097-01-01T00:00:00Z"
    assert up.run("price-list", "publish", str(file), "--valid-from", far).code == 0
    kept_out = up.run("price-list", "publish", str(file), "--valid-from", near)
    assert "withdraw version 2 first" in kept_out.errors

    assert "in force" in up.run("price-list", "withdraw", "typo", "1").errors
    tried = up.run("price-list", "withdraw", "typo", "2", "--dry-run")
    assert tried.output == "it would be withdrawn\n"
    assert up.run("price-list", "withdraw", "typo", "2").output == "withdrew typo, version 2\n"

    listed = [each for each in up.json("price-list", "list") if each["name"] == "typo"]
    assert [each["version"] for each in listed] == [1]
    placed = up.run("price-list", "publish", str(file), "--valid-from", near)
    assert placed.output == "published typo, version 3\n"
    told = up.json("why", "typo")["events"]
    assert "billing.price_list.withdrawn.v1" in {event["tag"] for event in told}
    bill = cloud.admin("GET", "/v1/bill?price_list=typo")
    assert (bill.status, bill.body["bills"][0]["currency"]) == (200, "EUR"), bill
    action = {"type": "WithdrawPriceList", "name": "typo", "version": 3}
    assert cloud.demo("POST", "/v1/actions", action).status == 403
