"""Drafts and months of a running cloud: derived, explained down to who asked, closed and verified.

The months that the tests close lie before the cloud's first: whoever is billed for a month that is
over is in tests/projections/test_books.py.
"""

import json
from decimal import Decimal

import pytest

from projections.exports import INLINE_BYTES
from tests.api.conftest import Cloud, fresh
from tests.api.test_customers import submitted


@pytest.fixture(scope="module")
def customer(cloud: Cloud) -> str:
    """Return somebody who pays for what the demo project runs."""
    network = cloud.network(cloud.demo)
    cloud.server(cloud.demo, network["id"])
    action = {"type": "CreateCustomer", "name": fresh("acme"), "currency": "EUR"}
    terms = {"tax_percent": "19", "tax_name": "VAT", "discounts": [{"percent": "10"}]}
    ident = submitted(cloud.admin, action | terms)["customer_id"]
    project = cloud.admin("GET", "/identity/v3/projects?name=demo").body["projects"][0]["id"]
    submitted(cloud.admin, {"type": "AssignProject", "project_id": project, "customer_id": ident})
    return ident


def this_month(cloud: Cloud) -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).strftime("%Y-%m")


def test_a_draft_is_explained_down_to_who_asked(cloud: Cloud, customer: str):
    month = this_month(cloud)
    invoice = f"{month}.{customer}"
    told = cloud.admin("GET", f"/v1/billing/months/{month}").body
    shown = cloud.admin("GET", f"/v1/invoices/{invoice}").body["invoice"]

    assert [document["invoice_id"] for document in told["invoices"]] == [invoice]
    assert (told["closed"], shown["status"]) == (False, "draft")
    line = next(line for line in shown["lines"] if line.get("unit") == "Core-Hours")
    behind = cloud.admin("GET", f"/v1/invoices/{invoice}/lines/{line['line']}").body
    (held,) = behind["held"]
    assert held["begun_by"]["fact"] == "compute.server.started.v1"
    assert held["begun_by"]["action"] == "CreateServer"
    user = cloud.admin("GET", "/identity/v3/users?name=demo").body["users"][0]["id"]
    assert held["begun_by"]["user_id"] == user
    assert behind["rows"][0]["discount"] == "10"
    asked = cloud.admin("GET", f"/v1/audit/{held['begun_by']['request_id']}")
    assert asked.status == 200
    assert cloud.admin("GET", f"/v1/invoices/{invoice}/lines/99").status == 404
    assert cloud.admin("GET", f"/v1/invoices/{invoice}/lines/x").status == 400


def test_months_are_closed_in_order_once_they_are_over(cloud: Cloud, customer: str):
    month = this_month(cloud)
    early = cloud.admin("POST", f"/v1/billing/months/{month}/close", {})
    assert (early.status, "late reports" in early.body["detail"]) == (409, True)
    assert cloud.admin("POST", "/v1/billing/months/2026-13/close", {}).status == 400
    run = cloud.up.run

    first = run("invoice", "close", "2026-01")
    again = run("invoice", "close", "2026-01")
    skipped = run("invoice", "close", "2026-03")
    verified = run("invoice", "verify", "2026-01")

    assert first.code == 0, first.errors
    assert "closed 2026-01 at ordinal" in first.output
    assert (again.code, "is closed" in again.errors) == (1, True)
    assert (skipped.code, "the next is 2026-02" in skipped.errors) == (1, True)
    assert (verified.code, "comes out as it was recorded" in verified.output) == (0, True)
    (closed,) = cloud.admin("GET", "/v1/billing/months").body["months"]
    assert closed["price_list_versions"] == {}
    events = cloud.admin("GET", "/v1/why/2026-01").body["events"]
    request = next(event for event in events if event["kind"] == "request")
    assert request["body"]["request"]["actor"]["kind"] == "system"
    assert request["cause"], "it names the request that asked for it"


def test_nobody_else_closes_a_month(cloud: Cloud):
    closing = {
        "period": "2026-02", "ordinal": 1, "chain_hash": "0" * 64, "meter_versions": {},
        "price_list_versions": {}, "terms_digest": "0" * 64, "rows_digest": "0" * 64,
        "invoices": [],
    }  # fmt: skip
    forged = cloud.admin("POST", "/v1/actions", {"type": "ClosePeriod", "closing": closing})

    assert forged.status == 403
    # Whoever submits the action itself has derived nothing.
    issue = {"type": "IssueInvoice", "invoice_id": "2026-01.somebody"}
    refused = cloud.admin("POST", "/v1/actions", issue)
    assert (refused.status, "derives its month" in refused.body["detail"]) == (403, True)
    path = "/v1/invoices/2026-01.somebody/issue"
    assert cloud.admin("POST", path, {"also": ["../x"]}).status == 400
    assert cloud.admin("POST", path, {}).status == 404
    assert cloud.demo("POST", "/v1/billing/months/2026-02/close", {}).status == 403
    assert cloud.demo("GET", f"/v1/billing/months/{this_month(cloud)}").status == 403


def test_drafts_and_lists_from_the_command_line(cloud: Cloud, customer: str):
    month = this_month(cloud)
    draft = cloud.up.run("invoice", "draft", "--month", month)
    shown = cloud.up.run("invoice", "show", f"{month}.{customer}")
    line = cloud.up.run("invoice", "explain", f"{month}.{customer}", "1")
    settings = cloud.up.run("invoice", "settings", "--issuer", "Cloud Ltd", "--grace", "24")

    for done in (draft, shown, line, settings, cloud.up.run("invoice", "months")):
        assert done.code == 0, done.errors
    assert f"{month}.{customer}" in draft.output
    assert "VAT 19 %" in shown.output
    assert "CreateServer by" in line.output
    assert cloud.up.json("invoice", "list") == []


def test_a_month_under_other_prices_and_to_its_end(cloud: Cloud, customer: str, tmp_path):
    from tests.projections.story import PRICES

    rules = [
        {"sku": meter, "meter": meter, "unit": unit, "price": "1"}
        for meter, (unit, _) in PRICES.items()
    ]
    draft = tmp_path / "draft.json"
    draft.write_text(json.dumps({"currency": "EUR", "rules": rules}))
    gap = tmp_path / "gap.json"
    gap.write_text(json.dumps({"currency": "EUR", "rules": rules[1:]}))

    dearer = cloud.up.run("bill", "what-if", "--prices", str(draft))
    refused = cloud.up.run("bill", "what-if", "--prices", str(gap))
    foretold = cloud.up.json("bill", "forecast")
    bare = cloud.up.run("bill")

    odd = [{**rule, "minimun": "5"} for rule in rules]
    path = f"/v1/billing/months/{this_month(cloud)}/what-if"
    typo = cloud.admin("POST", path, {"currency": "EUR", "rules": odd})
    assert (typo.status, "rules.0.minimun" in typo.body["detail"]) == (400, True)
    said = [{**rule, "model": "unit", "per": 1} for rule in rules]  # what is so anyhow
    action = {"type": "PublishPriceList", "currency": "EUR", "rules": said}
    assert cloud.admin("POST", "/v1/actions?dry_run=1", action).body["verdict"] == "accepted"
    assert (dearer.code, "0 would pay less, 1 more" in dearer.output) == (0, True), dearer.errors
    assert (refused.code, "No rule matches" in refused.errors) == (1, True), refused.errors
    (mine,) = foretold["customers"]
    assert Decimal(mine["forecast"]) > Decimal(mine["so_far"]) >= 0
    assert (bare.code, bare.errors) == (0, "")
    assert len(cloud.admin("GET", "/v1/price-lists").body["price_lists"]) == 1


def test_an_invoice_is_printed_and_exported(cloud: Cloud, customer: str, tmp_path):
    month = this_month(cloud)
    invoice = f"{month}.{customer}"
    page = cloud.admin("GET", f"/v1/invoices/{invoice}/page")
    wrong = cloud.admin("GET", f"/v1/invoices/{invoice}/page?format=exe")
    pdf, table = tmp_path / "i.pdf", tmp_path / "focus.parquet"

    printed = cloud.up.run("invoice", "print", invoice, "--out", str(pdf))
    exported = cloud.up.run("invoice", "focus", "--month", month, "--out", str(table))
    old = cloud.admin("GET", f"/v1/billing/months/{month}/focus?version=1.2")
    none = cloud.admin(
        "GET", f"/v1/billing/months/{month}/focus?version=1.2&dataset=invoice-detail"
    )

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]  # it loads nothing
    assert b"VAT 19 %" in page.raw
    assert b">demo<" in page.raw
    assert wrong.status == none.status == 400
    assert (printed.code, exported.code) == (0, 0), (printed.errors, exported.errors)
    assert pdf.read_bytes().startswith(b"%PDF-")
    assert table.read_bytes().startswith(b"PAR1")
    told = json.loads((tmp_path / "focus.parquet.json").read_text())
    assert told["Recency"]["DatasetInstanceComplete"] is False
    assert old.raw.startswith(b'"BilledCost","BillingAccountId"')
    assert b"ProviderName" in old.raw
    assert len(old.raw) > INLINE_BYTES, "handed over in pieces"
    ends, rows = old.raw.endswith(b"\r\n"), old.raw.count(b"\r\n") - 1
    header = json.loads(old.headers["x-cumulog-focus-metadata"])
    assert (ends, header["DatasetInstance"]["Rows"]) == (True, rows)
    for wrong in ("customer=nobody", "part=all", "dataset=x", "format=xlsx", "version=2"):
        refused = cloud.admin("GET", f"/v1/billing/months/{month}/focus?{wrong}")
        assert refused.status == (404 if "nobody" in wrong else 400), (wrong, refused.body)
    assert cloud.demo("GET", f"/v1/invoices/{invoice}/page").status == 403

    before = cloud.admin("GET", f"/v1/why/{customer}").body["events"][0]["ordinal"] - 1
    early = ("--out", str(tmp_path / "early.html"), "--as-of", str(before))
    unknown = cloud.up.run("invoice", "print", invoice, *early)
    assert (unknown.code, "no invoice" in unknown.errors) == (1, True), unknown.errors
    assert not (tmp_path / "early.html").exists()


def test_an_export_is_answered_as_of_a_moment(cloud: Cloud, customer: str):
    path = f"/v1/billing/months/{this_month(cloud)}/focus?customer={customer}&as_of="

    def rename(name):
        action = {"type": "UpdateCustomer", "customer_id": customer, "name": fresh(name)}
        submitted(cloud.admin, action)
        events = cloud.admin("GET", f"/v1/why/{customer}").body["events"]
        return [event["ordinal"] for event in events]

    first, *_, then = rename("before")
    told = cloud.admin("GET", f"{path}{then}")
    rename("after")

    again = cloud.admin("GET", f"{path}{then}")

    assert told.status == 200, told.body
    assert told.raw.count(b"before") > 2
    assert again.raw == told.raw
    assert cloud.admin("GET", f"{path}{first - 1}").status == 404  # nobody was there yet
