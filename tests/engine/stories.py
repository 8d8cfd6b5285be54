"""Random stories of a cell: every kind of request, accepted or refused, as a seed sets."""

import random
from decimal import Decimal
from typing import Any

from engine.domain.billing.periods import terms_digest, versions_before
from engine.domain.state import Cell, State, digest
from schemas import billing, compute, host, identity, image, network, operation
from schemas.envelope import Actor
from schemas.months import month_bounds, next_month
from tests.engine.world import SECRET, SYSTEM, World


class Story:
    """Plays requests into a world. What it does next depends on its dice and the state alone."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.dice = random.Random(seed)

    def begin(self) -> None:
        """Make what most requests need."""
        world = self.world
        for name in ("host-1", "host-2", "host-3"):
            world.host(name)
        world.flavor()
        world.flavor(name="no-disk", disk_gib=0)
        world.image()
        for name in ("one", "two"):
            world.network(world.member(name))

    def play(self, steps: int) -> None:
        """Do something, so many times."""
        acts = [getattr(self, name) for name in sorted(dir(self)) if name.startswith("do_")]
        for _ in range(steps):
            if self.dice.random() < 0.03:
                # Now and then long enough for answers to be forgotten, or even keys.
                self.world.now += self.dice.choice((10**6, 10**8, 9 * 10**10))
            self.dice.choice(acts)()

    def one(self, among: Any) -> Any:
        """Return one of the keys; sometimes one that there is not."""
        keys = list(among)
        return self.dice.choice(keys) if keys and self.dice.random() < 0.95 else "nothing"

    def somebody(self) -> Actor:
        state = self.world.cell.state
        if self.dice.random() < 0.3:
            return self.world.admin
        users = [
            (user, project)
            for user, projects in state.grants.items()
            for project in projects
            if user in state.users and project in state.projects
            if state.users[user].enabled and state.projects[project].enabled
            if state.domains[state.users[user].domain_id].enabled
            if state.domains[state.projects[project].domain_id].enabled
        ]
        user, project = self.dice.choice(users)
        return Actor(kind="user", user_id=user, project_id=project, issued_at=self.world.now)

    def ask(self, action: Any, actor: Actor | None = None) -> None:
        fields: dict[str, Any] = {}
        if self.dice.random() < 0.3:
            fields = {"key": f"key-{self.world.new_id()}", "digest": "d"}
        self.world.submit(actor or self.somebody(), action, **fields)

    def name(self) -> str:
        return f"n{self.dice.randrange(40)}"

    # Identity

    def do_people(self) -> None:
        state = self.world.cell.state
        password = SECRET
        self.ask(
            self.dice.choice(
                [
                    identity.CreateProject(name=self.name()),
                    identity.CreateUser(name=self.name(), password=password),
                    identity.UpdateProject(project_id=self.one(state.projects), name=self.name()),
                    identity.UpdateUser(user_id=self.one(state.users), name=self.name()),
                    identity.DeleteProject(project_id=self.one(state.projects)),
                    identity.DeleteUser(user_id=self.one(state.users)),
                    identity.RevokeToken(audit_id=self.name(), expires_at=self.world.now + 10**8),
                ]
            ),
            self.world.admin,
        )

    def do_roles(self) -> None:
        state = self.world.cell.state
        kind = self.dice.choice([identity.GrantRole, identity.GrantRole, identity.RevokeRole])
        self.ask(
            kind(
                user_id=self.one(state.users),
                project_id=self.one(state.projects),
                role_id=self.one(state.roles),
            ),
            self.world.admin,
        )

    def do_domains(self) -> None:
        state, dice = self.world.cell.state, self.dice
        domain, user, group = self.one(state.domains), self.one(state.users), self.one(state.groups)
        self.ask(
            dice.choice(
                [
                    identity.CreateDomain(name=self.name()),
                    identity.UpdateDomain(domain_id=domain, name=self.name()),
                    identity.UpdateDomain(domain_id=domain, enabled=dice.random() < 0.5),
                    identity.DeleteDomain(domain_id=domain),
                    identity.CreateProject(name=self.name(), domain_id=domain),
                    identity.CreateProject(
                        name=self.name(), parent_id=self.one(state.projects), domain_id="default"
                    ),
                    identity.CreateUser(name=self.name(), domain_id=domain),
                    identity.CreateGroup(name=self.name(), domain_id=domain),
                    identity.CreateGroup(name=self.name()),
                    identity.UpdateGroup(group_id=group, name=self.name()),
                    identity.DeleteGroup(group_id=group),
                    *(identity.AddGroupMember(group_id=group, user_id=user),) * 3,
                    identity.RemoveGroupMember(group_id=group, user_id=user),
                ]
            ),
            self.world.admin,
        )

    def do_more_roles(self) -> None:
        state, dice = self.world.cell.state, self.dice
        role, other = self.one(state.roles), self.one(state.roles)
        holder = dice.choice(
            [{"user_id": self.one(state.users)}, {"group_id": self.one(state.groups)}]
        )
        target = dice.choice(
            [
                {"project_id": self.one(state.projects), "inherited": dice.random() < 0.5},
                {"domain_id": self.one(state.domains), "inherited": dice.random() < 0.5},
                {"system": True},
            ]
        )
        self.ask(
            dice.choice(
                [
                    identity.CreateRole(name=self.name()),
                    identity.CreateRole(name=self.name(), domain_id=self.one(state.domains)),
                    identity.UpdateRole(role_id=role, name=self.name()),
                    identity.DeleteRole(role_id=role),
                    identity.ImplyRole(prior_role_id=role, implied_role_id=other),
                    identity.ImplyRole(prior_role_id=other, implied_role_id=role),
                    identity.EndRoleImplication(prior_role_id=role, implied_role_id=other),
                    *(identity.GrantRole(role_id=role, **holder, **target),) * 4,
                    identity.RevokeRole(role_id=role, **holder, **target),
                ]
            ),
            self.world.admin,
        )

    def do_stand_ins(self) -> None:
        state = self.world.cell.state
        actor = self.somebody()
        rule = identity.NewAccessRule(service="compute", method="GET", path=f"/{self.name()}")
        ident = self.name()
        self.ask(
            self.dice.choice(
                [
                    identity.CreateApplicationCredential(name=self.name(), secret=SECRET),
                    identity.CreateApplicationCredential(
                        name=self.name(), secret=SECRET, access_rules=(rule,)
                    ),
                    identity.DeleteApplicationCredential(
                        application_credential_id=self.one(state.application_credentials)
                    ),
                    identity.DeleteAccessRule(
                        access_rule_id=self.one(state.access_rules.get(actor.user_id, ()))
                    ),
                    identity.CreateCredential(user_id=actor.user_id, kind="totp", blob=SECRET),
                    identity.CreateCredential(
                        user_id=actor.user_id,
                        kind="ec2",
                        blob=SECRET,
                        access=ident,
                        credential_id=ident,
                        project_id=actor.project_id,
                    ),
                    identity.UpdateCredential(
                        credential_id=self.one(state.credentials), blob=SECRET
                    ),
                    identity.DeleteCredential(credential_id=self.one(state.credentials)),
                    *(
                        identity.CreateTrust(
                            trustee_user_id=self.one(state.users),
                            impersonation=True,
                            project_id=actor.project_id,
                            role_ids=(self.one(state.roles),),
                            remaining_uses=2,
                        ),
                    )
                    * 3,
                    identity.UseTrust(trust_id=self.one(state.trusts)),
                    identity.DeleteTrust(trust_id=self.one(state.trusts)),
                ]
            ),
            actor,
        )

    def do_catalog(self) -> None:
        state, dice = self.world.cell.state, self.dice
        region, service = self.one(state.regions), self.one(state.services)
        self.ask(
            dice.choice(
                [
                    identity.CreateRegion(region_id=self.name()),
                    identity.UpdateRegion(
                        region_id=region, parent_region_id=self.one(state.regions)
                    ),
                    identity.DeleteRegion(region_id=region),
                    identity.CreateService(service_type=self.name()),
                    identity.DeleteService(service_id=service),
                    *(
                        identity.CreateEndpoint(
                            service_id=service,
                            interface="public",
                            url="http://x",
                            region_id=region,
                        ),
                    )
                    * 3,
                    identity.UpdateEndpoint(
                        endpoint_id=self.one(state.endpoints), region_id=region
                    ),
                    identity.DeleteEndpoint(endpoint_id=self.one(state.endpoints)),
                ]
            ),
            self.world.admin,
        )

    # Compute

    def do_flavors_and_keys(self) -> None:
        state = self.world.cell.state
        kept = list(state.flavors)[2:]
        self.ask(
            self.dice.choice(
                [
                    compute.CreateFlavor(name=self.name(), vcpus=1, memory_mib=256),
                    compute.DeleteFlavor(flavor_id=self.one(kept)),
                    compute.CreateKeypair(name=self.name(), public_key="ssh-rsa AAAA" * 3),
                    compute.DeleteKeypair(name=self.name()),
                ]
            )
        )

    def do_server(self) -> None:
        state = self.world.cell.state
        networks = None
        if self.dice.random() < 0.6:
            wanted = compute.NetworkRequest(network_id=self.one(state.networks))
            if self.dice.random() < 0.3:
                wanted = compute.NetworkRequest(port_id=self.one(state.ports))
            networks = (wanted,)
        self.ask(
            compute.CreateServer(
                name=self.name(),
                flavor_id=self.one(state.flavors),
                image_id=self.one(state.images),
                networks=networks,
                metadata={"a": "b"},
            )
        )

    def do_lifecycle(self) -> None:
        server = self.one(self.world.cell.state.servers)
        self.ask(
            self.dice.choice(
                [
                    compute.StartServer(server_id=server),
                    compute.StopServer(server_id=server),
                    compute.RebootServer(server_id=server, hard=self.dice.random() < 0.5),
                    compute.RenameServer(server_id=server, name=self.name()),
                    compute.DeleteServer(server_id=server),
                    compute.DeleteServer(server_id=server),
                ]
            )
        )

    # Image and network

    def do_image(self) -> None:
        state = self.world.cell.state
        self.ask(
            self.dice.choice(
                [
                    image.CreateImage(name=self.name(), disk_format="raw"),
                    image.UploadImage(
                        image_id=self.one(state.images),
                        blob_id=f"blob-{self.world.new_id()}",
                        size_bytes=3,
                        md5="0" * 32,
                        sha512="0" * 128,
                    ),
                    image.UpdateImage(image_id=self.one(state.images), name=self.name()),
                    image.DeleteImage(image_id=self.one(list(state.images)[1:])),
                ]
            )
        )

    def do_network(self) -> None:
        state = self.world.cell.state
        self.ask(
            self.dice.choice(
                [
                    network.CreateNetwork(name=self.name(), shared=self.dice.random() < 0.2),
                    network.DeleteNetwork(network_id=self.one(state.networks)),
                    network.CreateSubnet(
                        network_id=self.one(state.networks),
                        cidr=f"10.{self.dice.randrange(99)}.0.0/29",
                        enable_dhcp=self.dice.random() < 0.7,
                    ),
                    network.DeleteSubnet(subnet_id=self.one(state.subnets)),
                ]
            )
        )

    def do_port(self) -> None:
        state = self.world.cell.state
        fixed = None
        if self.dice.random() < 0.3:
            address = f"10.0.0.{self.dice.randrange(256)}"
            fixed = (network.FixedIpRequest(ip_address=address),)
        self.ask(
            self.dice.choice(
                [
                    network.CreatePort(network_id=self.one(state.networks), fixed_ips=fixed),
                    network.DeletePort(port_id=self.one(state.ports)),
                ]
            )
        )

    # The system and the hosts

    def do_report(self) -> None:
        state, now = self.world.cell.state, self.world.now
        operations = list(state.operations.values())
        if not operations:
            return
        for found in self.dice.sample(operations, min(3, len(operations))):
            if self.dice.random() < 0.1:
                passed = operation.PassDeadline(
                    operation_id=found.operation_id, generation=found.generation
                )
                self.world.submit(SYSTEM, passed)
                continue
            self.world.report(
                found.operation_id,
                host=found.host_id,
                succeeded=self.dice.random() < 0.8,
                observed_at=now,
                cause="no",
                virtual_size_bytes=2**20,
            )

    def do_seen(self) -> None:
        servers = list(self.world.cell.state.servers.values())
        if not servers:
            return
        server = self.dice.choice(servers)
        seen = compute.ReportServerState(
            server_id=server.server_id,
            boot=server.boot,
            running=self.dice.random() < 0.5,
            observed_at=self.world.now,
        )
        self.world.submit(self.world.agent(server.host_id or "host-1"), seen)

    def do_host(self) -> None:
        status = self.dice.choice(("up", "up", "down"))
        marked = host.MarkHost(host_id=self.one(self.world.cell.state.hosts), status=status)
        self.world.submit(SYSTEM, marked)

    def do_prices(self) -> None:
        if self.dice.random() < 0.2:
            rules = tuple(
                billing.PriceRule(sku=meter, meter=meter, unit=unit, price="0.1")
                for meter, unit in (
                    ("compute.vcpu", "Core-Hours"),
                    ("compute.memory", "GiB-Hours"),
                    ("compute.disk", "GiB-Hours"),
                    ("image.size", "GiB-Hours"),
                )
            )
            later = self.world.now + self.dice.choice((10**9, 10**13))
            when = self.dice.choice((None, None, later))
            published = billing.PublishPriceList(currency="EUR", rules=rules, valid_from=when)
            self.ask(published, self.world.admin)
            if versions := self.world.cell.state.price_lists.get("standard"):
                version = self.dice.choice(versions).version
                self.ask(billing.WithdrawPriceList(version=version), self.world.admin)

    def do_customers(self) -> None:
        state, dice, world = self.world.cell.state, self.dice, self.world
        customer, invoice = self.one(state.customers), self.one(state.invoices)
        project = self.one(state.projects)
        self.ask(
            dice.choice(
                [
                    billing.CreateCustomer(name=self.name(), currency="EUR"),
                    billing.UpdateCustomer(customer_id=customer, name=self.name()),
                    billing.AssignProject(project_id=project, customer_id=customer),
                    billing.AssignProject(project_id=project, customer_id=""),
                    billing.GrantCredit(customer_id=customer, amount="5.5", reason="dice"),
                    billing.CreateBudget(name=self.name(), customer_id=customer, amount="5"),
                    billing.DeleteBudget(budget_id=self.one(state.budgets)),
                    billing.SetBilling(payment_days=dice.randrange(30)),
                    billing.IssueInvoice(invoice_id=invoice),
                    billing.VoidInvoice(invoice_id=invoice, reason="dice"),
                    billing.CorrectLine(invoice_id=invoice, line=1, amount="1", reason="dice"),
                ]
            ),
            world.admin,
        )
        if dice.random() < 0.1:
            self.close_a_month()

    def close_a_month(self) -> None:
        state = self.world.cell.state
        period = next_month(max(state.periods)) if state.periods else "2023-01"
        credit = next((c for c in state.credits.values() if Decimal(c.remaining) > 1), None)
        invoices = tuple(
            billing.ClosedInvoice(
                invoice_id=f"{period}.{customer_id}",
                customer_id=customer_id,
                currency=versions[-1].currency,
                rows=1,
                rows_digest="0" * 64,
                net="2",
                tax="0",
                total="1.00" if credit and credit.customer_id == customer_id else "2.00",
                credits={credit.credit_id: "1"}
                if credit and credit.customer_id == customer_id
                else {},
            )
            for customer_id, versions in state.customers.items()
        )
        closing = billing.Closing(
            period=period,
            ordinal=state.ordinal,
            chain_hash="0" * 64,
            meter_versions={},
            price_list_versions=versions_before(state, month_bounds(period)[1]),
            terms_digest=terms_digest(state),
            rows_digest="0" * 64,
            invoices=invoices,
        )
        self.ask(billing.ClosePeriod(closing=closing), SYSTEM)


def a_story(seed: int, steps: int = 220) -> World:
    """Return a world after so many random acts."""
    world = World(seed)
    story = Story(world, seed)
    story.begin()
    story.play(steps)
    return world


def assert_equal(cell: Cell, other: Cell) -> None:
    """Equal in all that a decision may look at, the order of things included."""
    assert cell.state == other.state
    assert orders(cell.state) == orders(other.state)
    assert digest(cell) == digest(other)
    assert cell.index == other.index
    subnets = {n: list(held) for n, held in cell.index.network_subnets.items()}
    assert subnets == {n: list(held) for n, held in other.index.network_subnets.items()}
    assert cell.answered_queue == other.answered_queue
    assert cell.keyed_queue == other.keyed_queue


def orders(state: State) -> list[object]:
    """Return the keys of all collections in their order: some decisions go through them."""
    collections = [getattr(state, name) for name in State.__struct_fields__]
    inner = [*state.grants.values(), *state.keypairs.values()]
    return [list(held) for held in (*collections, *inner) if isinstance(held, dict)]
