"""A small company's months: a leap February, a price change, a deletion, a late report, a dispute.

Three customers. Acme runs a server and deletes it in the middle of the month; Bolt, with a discount
and two projects, stops one in the last hour of February, and the host tells of it days after the
month was closed; Crumb keeps an image. All is decided by the real decider.
"""

from contextlib import ExitStack
from pathlib import Path

from engine.domain.billing.periods import need_closable
from projections.archive import Archive
from projections.books import Books, opened
from projections.history import History
from schemas.billing import (
    AssignProject,
    ClosePeriod,
    CreateCustomer,
    Discount,
    GrantCredit,
    IssueInvoice,
    Match,
    PriceRule,
    PublishPriceList,
    Tier,
)
from schemas.compute import StopServer
from schemas.months import month_bounds
from schemas.units import DAY, HOUR, MINUTE
from tests.engine.world import SYSTEM
from tests.projections.story import Story, reading

FEBRUARY, MARCH = "2024-02", "2024-03"
START, END = month_bounds(FEBRUARY)


def prices(cpu="0.0123", **fields):
    small, other = Match(any_of=("small",)), Match(all_except=("small",))
    tiers = (Tier(up_to="500", price="0.0034"), Tier(price="0.0029"))
    rules = (
        _rule("cpu-small", "compute.vcpu", "Core-Hours", price=cpu, match={"flavor": small}),
        _rule("cpu", "compute.vcpu", "Core-Hours", price="0.02", match={"flavor": other}),
        _rule("memory", "compute.memory", "GiB-Hours", model="graduated", tiers=tiers),
        _rule("disk", "compute.disk", "GiB-Hours", price="0.000123", included="1000"),
        _rule("image", "image.size", "GiB-Hours", price="0.00005", minimum="0.50"),
    )
    return PublishPriceList(currency="EUR", rules=rules, **fields)


def _rule(sku, meter, unit, **fields):
    return PriceRule(sku=sku, meter=meter, unit=unit, **fields)


class Company(Story):
    """The story up to the end of February; ``tell_late`` and later months follow."""

    def __init__(self) -> None:
        super().__init__(2024)
        self.books = ExitStack()
        self.at(START - DAY)
        self.host(vcpus=64, memory=2**17, disk=1000)
        self.without_quotas()
        self.ok(self.admin, prices())
        self.small = self.flavor(name="small", vcpus=1, memory_mib=1024, disk_gib=10)
        self.large = self.flavor(name="large", vcpus=4, memory_mib=4096, disk_gib=40)
        self.public = self.image()
        berlin = {"zone": "Europe/Berlin", "address": "Ring 1\n10115 Berlin"}
        self.acme = self._customer("Acme", "acme", tax_percent="19", tax_name="VAT", **berlin)
        off = (Discount(percent="12.5"),)
        self.bolt = self._customer("Bolt", "bolt-web", "bolt-data", discounts=off)
        self.crumb = self._customer("Crumb", "crumb", tax_percent="7.7", tax_name="TVA")
        credit = GrantCredit(customer_id=self.acme, amount="1.50", reason="an outage")
        self.ok(self.admin, credit)
        self._february()

    def _customer(self, name, *projects, **terms):
        action = CreateCustomer(name=name, currency="EUR", **terms)
        customer_id = self.ok(self.admin, action)["customer_id"]
        for project in projects:
            actor = self.actors[project] = self.member(project)
            assign = AssignProject(project_id=actor.project_id, customer_id=customer_id)
            self.ok(self.admin, assign)
        return customer_id

    def at(self, moment) -> None:
        assert moment >= self.now, "time does not go back"
        self.now = moment

    def _february(self) -> None:
        acme, web, data = (self.actors[n] for n in ("acme", "bolt-web", "bolt-data"))
        self.at(START + 9 * HOUR)
        self.web_1 = self.server(acme, name="web-1", flavor_id=self.large)
        self.at(START + 3 * DAY + 7 * MINUTE)
        self.web_2 = self.server(web, name="web-2", flavor_id=self.small)
        self.at(START + 9 * DAY)
        self.database = self.server(data, name="db", flavor_id=self.large)
        self.at(START + 13 * DAY)
        self.ok(self.admin, prices(cpu="0.0150", valid_from=START + 14 * DAY + 6 * HOUR))
        self.at(START + 19 * DAY + 12 * HOUR)
        self.delete(acme, self.web_1)
        self.at(START + 20 * DAY)
        self.image(self.actors["crumb"])
        self.at(END - HOUR)
        self.stopping = self.ok(data, StopServer(server_id=self.database))["operation_id"]
        self.stopped_at = END - 30 * MINUTE

    def tell_late(self) -> None:
        """The host tells when the database stopped: in a month that is closed."""
        self.at(END + 5 * DAY)
        self.report(self.stopping, observed_at=self.stopped_at)

    def close(self, archive: Archive, month: str) -> None:
        """Close a month as the archiver does, once it may be."""
        self.at(max(self.now, month_bounds(month)[1] + 48 * HOUR))
        need_closable(self.cell.state, month, self.now)
        with opened(archive, self.now) as books:
            closing = books.closing(month)
        self.ok(SYSTEM, ClosePeriod(closing=closing, user_id=self.admin.user_id))

    def issue(self, month: str) -> None:
        for invoice_id, invoice in self.cell.state.invoices.items():
            if invoice.period == month:
                self.ok(self.admin, IssueInvoice(invoice_id=invoice_id))


def archived(story: Story, directory: Path) -> Archive:
    """Return the archive of what a story has written so far, and will write."""
    return Archive(History(directory / "history"), story.read, reading(story, directory / "r.db"))


def books(archive: Archive, story: Company) -> Books:
    """Return the books as they are now, open as long as the story is told."""
    return story.books.enter_context(opened(archive, story.now))
