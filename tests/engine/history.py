"""One history with every action and every fact there is, refusals too: the same each time."""

from collections.abc import Callable, Iterator
from typing import Any

from msgspec.structs import replace

from engine.domain.billing.periods import terms_digest, versions_before
from schemas import access as a
from schemas import alarm as l
from schemas import billing as b
from schemas import compute as c
from schemas import engine as e
from schemas import host as h
from schemas import identity as i
from schemas import image as m
from schemas import metering as t
from schemas import network as n
from schemas import operation as o
from schemas import policy as p
from schemas import quota as q
from schemas import samples as r
from schemas import webhook as w
from schemas.envelope import Actor, Record
from schemas.months import month_bounds
from schemas.units import HOUR, MINUTE
from tests.engine.world import SECRET, SYSTEM, World

type Submit = Callable[..., Record]


def everything(world: World) -> Iterator[tuple[Actor, Any]]:
    """Yield actions as they are due; each must be submitted to the world before the next.

    Accepted and refused ones alternate; time passes in between.
    """
    state = world.cell.state
    yield SYSTEM, e.ElectLeader(epoch=1, node="node-1")
    yield from [(SYSTEM, e.ConfirmLead(epoch=1, node="node-1"))] * 3
    yield SYSTEM, e.ElectLeader(epoch=1, node="node-2")
    yield from _accounts(world)
    yield from _domains(world)
    yield from _stand_ins(world)
    yield from _catalog(world)
    yield from _federation(world)
    demo = world.actors["demo"]
    capacity = h.Capacity(vcpus=8, memory_mib=8192, disk_gib=100)
    register = h.RegisterHost(
        capacity=capacity,
        hypervisor="simulated",
        accelerator="none",
        executors=("hypervisor", "storage", "network"),
    )
    yield world.agent("host-1"), register
    yield world.agent("host-2"), register
    yield demo, register
    yield SYSTEM, h.MarkHost(host_id="host-2", status="down", reason="silent")
    drift = (h.DriftFound(kind="tap", name="t1", found="there", done="removed"),)
    yield world.agent("host-1"), h.ReportDrift(drift=drift, observed_at=world.now)
    yield world.agent("host-1"), h.ReportDrift(drift=drift, observed_at=world.now - HOUR)
    yield world.agent("host-1"), h.ReportDrift(drift=drift, observed_at=world.now + HOUR)
    yield from _prices(world)
    yield from _meters(world)
    yield from _alarms(world)
    yield from _customers(world)
    yield from _invoices(world)
    yield from _budgets(world)
    yield from _quotas(world)
    yield from _images(world)
    yield from _networks(world)
    yield from _servers(world)
    yield from _samples(world)
    yield from _webhooks(world)
    yield from _trespasses(world)
    yield demo, c.DeleteKeypair(name="mine")
    yield demo, c.DeleteKeypair(name="mine")
    only_managers = ("admin in cloud", "manager in project")
    yield world.admin, p.SetPolicy(rules={"DeleteServer": only_managers})
    yield demo, p.SetPolicy(rules={"DeleteServer": None})
    yield world.admin, p.SetPolicy(rules={"DeleteServer": None})
    yield world.admin, c.DeleteFlavor(flavor_id="huge")
    yield from _farewell(world)
    assert state.ordinal > 0


def _accounts(world: World) -> Iterator[tuple[Actor, Any]]:
    state, admin = world.cell.state, world.admin
    for name in ("demo", "other"):
        yield admin, i.CreateProject(name=name, description="a project")
        yield admin, i.CreateUser(name=name, password=SECRET)
        project = world.cell.index.project_names["default", name]
        user = world.cell.index.user_names["default", name]
        member = next(r.role_id for r in state.roles.values() if r.name == "member")
        grant = {"user_id": user, "project_id": project, "role_id": member}
        yield admin, i.GrantRole(**grant)
        world.actors[name] = Actor(
            kind="user",
            user_id=user,
            project_id=project,
            roles=("member",),
            audit_id=f"audit-{name}",
            issued_at=world.now,
        )
    demo, other = world.actors["demo"], world.actors["other"]
    yield admin, i.CreateProject(name="demo")
    yield demo, i.CreateProject(name="mine")
    yield admin, i.UpdateProject(project_id=other.project_id, description="changed")
    yield admin, i.UpdateUser(user_id=other.user_id, name="another")
    yield demo, i.UpdateUser(user_id=other.user_id, name="mine")
    yield other, i.RevokeToken(audit_id="audit-ended", expires_at=world.now + HOUR)


def _domains(world: World) -> Iterator[tuple[Actor, Any]]:
    """A domain with its own users, groups, roles and projects, which goes in the end."""
    admin, demo, index = world.admin, world.actors["demo"], world.cell.index
    yield admin, i.CreateDomain(name="acme", description="a customer", extra={"vip": True})
    yield admin, i.CreateDomain(name="acme")
    acme = index.domain_names["acme"]
    yield demo, i.UpdateDomain(domain_id=acme, name="mine")
    yield admin, i.UpdateDomain(domain_id=acme, tags=("big",))
    yield admin, i.CreateProject(name="top", domain_id=acme, tags=("a", "b"))
    top = index.project_names[acme, "top"]
    yield admin, i.CreateProject(name="below", domain_id=acme, parent_id=top)
    yield admin, i.DeleteProject(project_id=top)
    yield admin, i.CreateUser(name="ann", domain_id=acme, password=SECRET)
    ann = index.user_names[acme, "ann"]
    yield admin, i.CreateGroup(name="crew", domain_id=acme)
    yield demo, i.CreateGroup(name="crew", domain_id=acme)
    crew = index.group_names[acme, "crew"]
    yield admin, i.UpdateGroup(group_id=crew, description="all of them")
    yield demo, i.UpdateGroup(group_id=crew, name="mine")
    member = {"group_id": crew, "user_id": ann}
    yield admin, i.AddGroupMember(**member)
    yield demo, i.AddGroupMember(**member)
    yield admin, i.CreateRole(name="auditor")
    yield admin, i.CreateRole(name="auditor")
    yield admin, i.CreateRole(name="operator", domain_id=acme)
    auditor, operator = index.role_names["", "auditor"], index.role_names[acme, "operator"]
    yield admin, i.UpdateRole(role_id=auditor, description="reads all")
    yield admin, i.UpdateRole(role_id=index.role_names["", "admin"], name="boss")
    implied = {"prior_role_id": operator, "implied_role_id": index.role_names["", "member"]}
    yield admin, i.ImplyRole(**implied)
    yield demo, i.ImplyRole(**implied)
    yield admin, i.GrantRole(role_id=operator, group_id=crew, domain_id=acme, inherited=True)
    yield admin, i.GrantRole(role_id=auditor, user_id=ann, system=True)
    yield admin, i.GrantRole(role_id=auditor, user_id=ann)
    yield admin, i.EndRoleImplication(**implied)
    yield admin, i.EndRoleImplication(**implied)
    yield admin, i.DeleteRole(role_id=auditor)
    yield admin, i.DeleteRole(role_id=index.role_names["", "reader"])
    yield admin, i.RemoveGroupMember(**member)
    yield admin, i.RemoveGroupMember(**member)
    yield admin, i.SetPasswordPolicy(policy=i.PasswordPolicy(length_min=8, history=3))
    yield demo, i.SetPasswordPolicy(policy=i.PasswordPolicy())
    yield admin, i.UpdateUser(user_id=ann, password=SECRET)
    yield demo, i.DeleteGroup(group_id=crew)
    yield admin, i.DeleteDomain(domain_id=acme)
    yield admin, i.DeleteGroup(group_id=crew)
    yield admin, i.UpdateDomain(domain_id=acme, enabled=False)
    yield admin, i.DeleteDomain(domain_id=acme)
    yield admin, i.SetPasswordPolicy(policy=i.PasswordPolicy())


def _stand_ins(world: World) -> Iterator[tuple[Actor, Any]]:
    """What acts for a user: application credentials, keys, trusts."""
    demo, other, state = world.actors["demo"], world.actors["other"], world.cell.state
    rule = i.NewAccessRule(service="compute", method="GET", path="/v2.1/servers")
    create = i.CreateApplicationCredential(name="ci", secret=SECRET, access_rules=(rule,))
    yield demo, create
    yield demo, create
    (ident,) = state.application_credentials
    (rule_id,) = state.access_rules[demo.user_id]
    yield demo, i.DeleteAccessRule(access_rule_id=rule_id)
    yield other, i.DeleteApplicationCredential(application_credential_id=ident)
    yield demo, i.DeleteApplicationCredential(application_credential_id=ident)
    yield demo, i.DeleteAccessRule(access_rule_id=rule_id)
    key = {"user_id": demo.user_id, "kind": "ec2", "blob": SECRET}
    ec2 = {"project_id": demo.project_id, "access": "AKIA", "credential_id": "c" * 64}
    yield demo, i.CreateCredential(**key, **ec2)
    yield demo, i.CreateCredential(**key)
    yield demo, i.UpdateCredential(credential_id="c" * 64, blob=SECRET)
    yield other, i.UpdateCredential(credential_id="c" * 64, blob=SECRET)
    yield other, i.DeleteCredential(credential_id="c" * 64)
    yield demo, i.DeleteCredential(credential_id="c" * 64)
    member = world.cell.index.role_names["", "member"]
    trust = {
        "trustee_user_id": other.user_id,
        "impersonation": True,
        "project_id": demo.project_id,
        "role_ids": (member,),
    }
    yield demo, i.CreateTrust(**trust, remaining_uses=1)
    yield other, i.CreateTrust(**trust)
    (ident,) = state.trusts
    yield other, i.UseTrust(trust_id=ident)
    yield other, i.UseTrust(trust_id=ident)
    yield other, i.DeleteTrust(trust_id=ident)
    yield demo, i.DeleteTrust(trust_id=ident)


def _catalog(world: World) -> Iterator[tuple[Actor, Any]]:
    admin, demo, state = world.admin, world.actors["demo"], world.cell.state
    yield admin, i.CreateRegion(region_id="north")
    yield admin, i.CreateRegion(region_id="north")
    yield admin, i.UpdateRegion(region_id="north", description="cold")
    yield admin, i.UpdateRegion(region_id="north", parent_region_id="none")
    yield admin, i.CreateService(service_type="dns", name="names")
    yield demo, i.CreateService(service_type="dns")
    (service,) = state.services
    yield admin, i.UpdateService(service_id=service, enabled=False)
    yield admin, i.UpdateService(service_id="none", enabled=False)
    url = "https://dns.example.org/%(project_id)s"
    create = i.CreateEndpoint(service_id=service, interface="public", url=url, region_id="north")
    yield admin, create
    yield demo, create
    (endpoint,) = state.endpoints
    yield admin, i.UpdateEndpoint(endpoint_id=endpoint, enabled=False)
    yield admin, i.UpdateEndpoint(endpoint_id=endpoint, service_id="none")
    yield admin, i.DeleteRegion(region_id="north")
    yield demo, i.DeleteEndpoint(endpoint_id=endpoint)
    yield admin, i.DeleteEndpoint(endpoint_id=endpoint)
    yield admin, i.DeleteService(service_id="none")
    yield admin, i.DeleteService(service_id=service)
    yield admin, i.DeleteRegion(region_id="north")


def _federation(world: World) -> Iterator[tuple[Actor, Any]]:
    """A provider whose users come and go."""
    admin, demo, edge = world.admin, world.actors["demo"], Actor(kind="edge", user_id="node-1")
    oidc = i.NewOidc(issuer="https://idp.example.org", client_id="cloud", client_secret=SECRET)
    create = i.CreateIdentityProvider(idp_id="corp", remote_ids=("corp",), oidc=oidc)
    yield admin, create
    yield admin, create
    yield admin, i.UpdateIdentityProvider(idp_id="corp", description="all of us")
    yield demo, i.UpdateIdentityProvider(idp_id="corp", enabled=False)
    local = (i.Local(user=i.LocalUser(name="{0}")),)
    rules = (i.MappingRule(local=local, remote=(i.Remote(type="name"),)),)
    yield admin, i.CreateMapping(mapping_id="names", rules=rules)
    yield demo, i.CreateMapping(mapping_id="names", rules=rules)
    yield admin, i.UpdateMapping(mapping_id="names", rules=rules)
    yield admin, i.UpdateMapping(mapping_id="none", rules=rules)
    names = {"idp_id": "corp", "protocol_id": "openid"}
    yield admin, i.CreateProtocol(**names, mapping_id="names")
    yield admin, i.CreateProtocol(**names, mapping_id="names")
    yield admin, i.UpdateProtocol(**names, mapping_id="names")
    yield admin, i.UpdateProtocol(**names, mapping_id="none")
    told = i.SignInFederated(**names, unique_id="1", claims={"name": ("ann",)})
    yield edge, told
    yield admin, told
    yield admin, i.DeleteMapping(mapping_id="names")
    yield admin, i.DeleteProtocol(**names)
    yield admin, i.DeleteProtocol(**names)
    yield admin, i.DeleteMapping(mapping_id="names")
    yield admin, i.DeleteIdentityProvider(idp_id="corp")
    yield admin, i.DeleteIdentityProvider(idp_id="corp")


def _prices(world: World) -> Iterator[tuple[Actor, Any]]:
    units: list[tuple[str, str]] = [
        ("compute.vcpu", "Core-Hours"),
        ("compute.memory", "GiB-Hours"),
        ("compute.disk", "GiB-Hours"),
        ("image.size", "GiB-Hours"),
    ]
    rules = tuple(b.PriceRule(sku=m, meter=m, unit=unit, price="0.01") for m, unit in units)
    yield world.admin, b.PublishPriceList(currency="EUR", rules=rules)
    yield world.admin, b.PublishPriceList(currency="USD", rules=rules)
    yield world.admin, b.PublishPriceList(currency="EUR", rules=rules[:1])
    for name in ("standard", "planned"):
        later = world.now + 10**15
        yield (
            world.admin,
            b.PublishPriceList(name=name, currency="EUR", rules=rules, valid_from=later),
        )
    yield world.admin, b.WithdrawPriceList(version=1)
    yield world.admin, b.WithdrawPriceList(version=2)
    yield world.admin, b.WithdrawPriceList(version=2)
    yield world.admin, b.WithdrawPriceList(name="planned", version=1)


def _meters(world: World) -> Iterator[tuple[Actor, Any]]:
    boots = (
        t.MeterRule(
            fact="compute.server.created.v1",
            effect="set",
            resource="server.server_id",
            project="server.project_id",
            dimensions={"image": "server.image_id"},
        ),
        t.MeterRule(fact="compute.server.started.v1", effect="add", resource="server_id"),
    )
    meter = t.DefineMeter(
        key="ops.boots",
        resource_kind="server",
        aggregation="count",
        unit="Boots",
        base_per_unit=1,
        rules=boots,
    )
    yield world.actors["demo"], meter
    yield world.admin, meter
    yield world.admin, replace(meter, key="compute.boots")
    yield world.admin, replace(meter, rules=(boots[0], replace(boots[1], resource="server.id")))
    rebooted = replace(boots[1], fact="compute.server.rebooted.v1")
    yield world.admin, replace(meter, rules=(*boots, rebooted))
    yield world.admin, replace(meter, unit="Hours")
    gone = t.DeleteMeter(key="ops.gone")
    yield world.admin, gone
    yield world.admin, replace(meter, key="ops.gone")
    yield world.admin, gone
    yield world.admin, gone


def _customers(world: World) -> Iterator[tuple[Actor, Any]]:
    admin, demo, state = world.admin, world.actors["demo"], world.cell.state
    create = b.CreateCustomer(
        name="Acme", currency="EUR", tax_percent="19", tax_name="VAT", zone="Europe/Berlin"
    )
    yield admin, create
    yield demo, create
    (acme,) = state.customers
    discount = b.Discount(percent="12.5", sku="compute.vcpu")
    yield admin, b.UpdateCustomer(customer_id=acme, discounts=(discount,))
    yield admin, b.UpdateCustomer(customer_id=acme, price_list="none")
    yield admin, b.AssignProject(project_id=demo.project_id, customer_id=acme)
    yield demo, b.AssignProject(project_id=demo.project_id, customer_id="")
    yield admin, b.GrantCredit(customer_id=acme, amount="10.00", reason="a bad day")
    yield admin, b.GrantCredit(customer_id=acme, amount="0", reason="nothing")
    yield admin, b.SetBilling(issuer_name="Cloud Ltd", grace_hours=24)
    yield demo, b.SetBilling(grace_hours=0)


def a_closing(world: World, period: str, **fields: Any) -> b.ClosePeriod:
    """Return what closes a month in which the one customer owes 100.00 and 19.00 of tax."""
    state = world.cell.state
    (acme,) = state.customers
    (credit,) = state.credits
    owed = b.ClosedInvoice(
        invoice_id=f"{period}.{acme}",
        customer_id=acme,
        currency="EUR",
        rows=2,
        rows_digest="1" * 64,
        net="100.000000",
        tax="18.525000",
        total="116.03",
        credits={credit: "2.50"},
    )
    closing = b.Closing(
        period=period,
        ordinal=state.ordinal,
        chain_hash="2" * 64,
        meter_versions={"compute.vcpu": 1},
        price_list_versions=versions_before(state, month_bounds(period)[1]),
        terms_digest=terms_digest(state),
        rows_digest="3" * 64,
        invoices=(owed,),
    )
    return b.ClosePeriod(closing=replace(closing, **fields), user_id=world.admin.user_id)


def _invoices(world: World) -> Iterator[tuple[Actor, Any]]:
    """Two closed months; of the invoices one is voided, and one issued and corrected."""
    admin, demo, state = world.admin, world.actors["demo"], world.cell.state
    yield SYSTEM, a_closing(world, "2023-09")
    yield SYSTEM, a_closing(world, "2023-09")
    yield admin, a_closing(world, "2023-10")
    yield SYSTEM, a_closing(world, "2023-10")
    first, second = state.invoices
    yield admin, b.IssueInvoice(invoice_id=first)
    yield demo, b.IssueInvoice(invoice_id=second)
    yield admin, b.VoidInvoice(invoice_id=second, reason="drawn up in vain")
    yield admin, b.IssueInvoice(invoice_id=second)
    yield admin, b.CorrectLine(invoice_id=first, line=1, amount="90.00", reason="a dispute")
    yield demo, b.VoidInvoice(invoice_id=first, reason="mine")
    yield admin, b.CorrectLine(invoice_id=second, line=1, amount="0", reason="voided")


def _alarms(world: World) -> Iterator[tuple[Actor, Any]]:
    demo, state = world.actors["demo"], world.cell.state
    failed = l.WhatHappened(facts=("compute.server.failed.v1",), window_s=600, above="2")
    busy = l.WhatIsHeld(meter="compute.vcpu", above="8")
    broken = l.DefineAlarm(name="broken", condition=failed)
    yield demo, broken
    yield demo, broken
    yield world.admin, replace(broken, condition=replace(failed, facts=("compute.server.lost.v1",)))
    yield demo, replace(broken, condition=l.AnyOf(conditions=(failed, busy)))
    (alarm,) = state.alarms.values()
    rings = l.ReportAlarm(
        alarm_id=alarm.alarm_id, updated_at=alarm.updated_at, ringing=True, since=world.now
    )
    yield demo, rings
    yield SYSTEM, rings
    yield SYSTEM, rings
    yield SYSTEM, replace(rings, ringing=False)
    yield SYSTEM, replace(rings, updated_at=0)
    gone = l.DeleteAlarm(alarm_id=alarm.alarm_id)
    yield world.actors["other"], gone
    yield demo, gone
    yield demo, gone
    yield demo, replace(broken, name="kept")


def _samples(world: World) -> Iterator[tuple[Actor, Any]]:
    server = next(s for s in world.cell.state.servers.values() if s.host_id == "host-1")
    hour = server.created_at // HOUR * HOUR
    world.now = max(world.now, hour + HOUR)
    rollup = r.Rollup(
        server_id=server.server_id,
        monitor="network.egress",
        hour=hour,
        count=60,
        first=0,
        last=500,
        minimum=0,
        maximum=900,
        increase=1400,
        boots=(1, 2),
    )
    told = r.ReportSamples(rollups=(rollup, replace(rollup, monitor="compute.cpu_time")))
    yield world.actors["demo"], told
    yield world.agent("host-1"), told
    yield world.agent("host-1"), told
    yield world.agent("host-1"), r.ReportSamples(rollups=(replace(rollup, hour=hour + HOUR),))
    yield world.agent("host-1"), r.ReportSamples(rollups=(replace(rollup, last=901),))


def _budgets(world: World) -> Iterator[tuple[Actor, Any]]:
    admin, demo, state = world.admin, world.actors["demo"], world.cell.state
    (acme,) = state.customers
    create = b.CreateBudget(name="month", customer_id=acme, amount="50", thresholds=(100, 80))
    yield admin, create
    yield demo, create
    (budget,) = state.budgets
    told = b.PassBudget(budget_id=budget, month="2023-11", threshold=80, amount="41.50")
    yield admin, told
    yield SYSTEM, told
    yield SYSTEM, b.PassBudget(budget_id=budget, month="2023-11", threshold=100, amount="41.50")
    yield demo, b.DeleteBudget(budget_id=budget)
    yield admin, b.DeleteBudget(budget_id=budget)


def _quotas(world: World) -> Iterator[tuple[Actor, Any]]:
    admin, demo = world.admin, world.actors["demo"]
    own = q.SetQuota(project_id=demo.project_id, limits={"networks": 5, "servers": 2, "vcpus": -1})
    yield admin, q.SetQuotaClass(limits={"networks": 0, "ports": 50})
    yield demo, q.SetQuotaClass(limits={"networks": 5})
    yield demo, n.CreateNetwork(name="none is allowed")
    yield admin, own
    yield admin, own
    yield demo, own
    yield admin, q.SetQuotaClass(limits={"networks": 20})
    yield admin, q.SetQuota(project_id=demo.project_id, limits={"nothing": 1})
    yield admin, q.SetQuota(project_id="none", limits={})
    yield (
        admin,
        q.SetQuota(project_id=demo.project_id, limits={"security_groups": 0}, check_limit=True),
    )
    yield admin, q.ResetQuota(project_id=demo.project_id, names=("servers",))
    yield admin, q.ResetQuota(project_id=demo.project_id, names=("servers",))
    yield demo, q.ResetQuota(project_id=demo.project_id)


def _images(world: World) -> Iterator[tuple[Actor, Any]]:
    admin, demo = world.admin, world.actors["demo"]
    state = world.cell.state
    create = m.CreateImage(name="tiny", disk_format="qcow2", visibility="public", image_id="tiny")
    content = {"size_bytes": 2**30, "md5": "0" * 32, "sha512": "0" * 128}
    yield admin, create
    yield admin, create
    for blob, good in (("blob-1", False), ("blob-2", True)):
        yield admin, m.UploadImage(image_id="tiny", blob_id=blob, **content)
        (operation,) = state.operations.values()
        yield (
            world.agent(operation.host_id),
            o.ReportOperation(
                operation_id=operation.operation_id,
                generation=1,
                succeeded=good,
                cause="" if good else "not a disk",
                observed_at=world.now,
                virtual_size_bytes=2**31,
            ),
        )
    yield demo, m.UploadImage(image_id="tiny", blob_id="blob-3", **content)
    yield admin, m.UpdateImage(image_id="tiny", tags=("small",))
    yield demo, m.CreateImage(name="private", disk_format="raw", image_id="private")
    yield demo, m.DeleteImage(image_id="private")
    yield demo, m.DeleteImage(image_id="private")


def _networks(world: World) -> Iterator[tuple[Actor, Any]]:
    demo, other = world.actors["demo"], world.actors["other"]
    index = world.cell.index
    yield demo, n.CreateNetwork(name="lab")
    yield demo, n.CreateNetwork(name="all", shared=True)
    (network,) = index.project_networks[demo.project_id]
    world.named["network"] = network
    yield demo, n.CreateSubnet(network_id=network, cidr="10.0.0.0/24")
    yield demo, n.CreateSubnet(network_id=network, cidr="10.0.0.0/16")
    yield demo, n.CreateSubnet(network_id=network, cidr="10.1.0.0/24", enable_dhcp=False)
    yield demo, n.DeleteSubnet(subnet_id=list(index.network_subnets[network])[1])
    yield other, n.DeleteNetwork(network_id=network)
    before = set(world.cell.state.ports)
    yield demo, n.CreatePort(network_id=network, name="kept")
    (world.named["port"],) = set(world.cell.state.ports) - before
    fixed = (n.FixedIpRequest(ip_address="10.0.0.77"),)
    yield demo, n.CreatePort(network_id=network, fixed_ips=fixed)
    yield demo, n.CreatePort(network_id=network, fixed_ips=fixed)
    (port,) = set(world.cell.state.ports) - before - {world.named["port"]}
    yield demo, n.DeletePort(port_id=port)
    yield demo, n.DeletePort(port_id=port)


def _servers(world: World) -> Iterator[tuple[Actor, Any]]:
    admin, demo, other = world.admin, world.actors["demo"], world.actors["other"]
    state = world.cell.state
    yield admin, c.CreateFlavor(name="s", vcpus=1, memory_mib=512, disk_gib=2, flavor_id="s")
    yield admin, c.CreateFlavor(name="s", vcpus=1, memory_mib=512, flavor_id="s")
    yield admin, c.CreateFlavor(name="any", vcpus=1, memory_mib=256, flavor_id="any")
    yield admin, c.CreateFlavor(name="huge", vcpus=64, memory_mib=512, flavor_id="huge")
    yield demo, c.CreateKeypair(name="mine", public_key="ssh-ed25519 AAAA", fingerprint="00")

    def report(running: bool = True, **fields: Any) -> tuple[Actor, Any]:
        world.now += MINUTE
        operation = next(iter(state.operations.values()))
        values = {"generation": 1, "succeeded": True, "observed_at": world.now - MINUTE, **fields}
        action = o.ReportOperation(operation_id=operation.operation_id, running=running, **values)
        return world.agent(operation.host_id), action

    wanted = (
        c.NetworkRequest(port_id=world.named["port"]),
        c.NetworkRequest(network_id=world.named["network"]),
    )
    create = c.CreateServer(
        name="web-1",
        flavor_id="s",
        image_id="tiny",
        networks=wanted,
        key_name="mine",
        metadata={"role": "web"},
    )
    yield demo, create
    yield report(generation=9)
    agent, action = report()
    yield world.agent("host-2"), action
    yield agent, action
    yield agent, action
    yield demo, create
    (web,) = world.cell.index.project_servers[demo.project_id]
    yield demo, c.RenameServer(server_id=web, name="web")
    yield demo, c.StartServer(server_id=web)
    yield other, c.StopServer(server_id=web)
    yield demo, c.StopServer(server_id=web, grace_s=5)
    yield demo, c.StopServer(server_id=web)
    yield report(running=False)
    yield demo, c.StartServer(server_id=web)
    yield report(observed_at=world.now + HOUR)
    yield report(succeeded=False, cause="no room", running=False)
    yield demo, c.StartServer(server_id=web)
    yield report()
    yield demo, c.RebootServer(server_id=web)
    yield report()
    yield from _resizes(world, web, report)
    world.now += HOUR
    for running in (False, True, False):
        server = state.servers[web]
        yield (
            world.agent("host-1"),
            c.ReportServerState(
                server_id=web,
                boot=server.boot,
                running=running,
                observed_at=world.now - MINUTE,
                cause="crash",
            ),
        )
    yield demo, c.RebootServer(server_id=web, hard=True)
    (operation,) = state.operations.values()
    yield SYSTEM, o.PassDeadline(operation_id=operation.operation_id, generation=2)
    world.now = operation.deadline
    yield SYSTEM, o.PassDeadline(operation_id=operation.operation_id, generation=1)
    yield demo, c.CreateServer(name="big", flavor_id="huge", image_id="tiny", networks=())
    big = next(s.server_id for s in state.servers.values() if s.name == "big")
    yield demo, c.DeleteServer(server_id=big)
    yield demo, c.CreateServer(name="brief", flavor_id="any", image_id="tiny", networks=())
    brief = next(s.server_id for s in state.servers.values() if s.name == "brief")
    yield demo, c.DeleteServer(server_id=brief)
    yield report(running=False)
    yield demo, c.DeleteServer(server_id=brief)
    yield demo, c.CreateServer(name="kept", flavor_id="any", image_id="tiny", networks=())
    yield report()
    yield demo, c.DeleteServer(server_id=web)
    yield report(running=False)
    yield demo, n.DeleteNetwork(network_id=world.named["network"])
    yield demo, n.DeletePort(port_id=world.named["port"])
    yield demo, n.DeleteNetwork(network_id=world.named["network"])


def _resizes(world: World, web: str, report: Any) -> Iterator[tuple[Actor, Any]]:
    """One that is confirmed, one reverted, and some that fail."""
    admin, demo, other = world.admin, world.actors["demo"], world.actors["other"]
    yield admin, c.CreateFlavor(name="m", vcpus=2, memory_mib=1024, disk_gib=4, flavor_id="m")
    yield admin, c.CreateFlavor(name="l", vcpus=1, memory_mib=2048, disk_gib=4, flavor_id="l")
    for flavor in ("s", "none", "any", "huge"):
        yield demo, c.ResizeServer(server_id=web, flavor_id=flavor)
    yield other, c.ResizeServer(server_id=web, flavor_id="m")
    yield demo, c.ConfirmServerResize(server_id=web)
    yield demo, c.RevertServerResize(server_id=web)
    yield demo, c.ResizeServer(server_id=web, flavor_id="m", disk_config="AUTO")
    yield report(succeeded=False, cause="no room", running=True)
    yield demo, c.ResizeServer(server_id=web, flavor_id="m")
    yield demo, c.ConfirmServerResize(server_id=web)
    yield report()
    yield demo, c.StopServer(server_id=web)
    yield demo, c.RevertServerResize(server_id=web)
    yield report(succeeded=False, cause="no room", running=True)
    yield demo, c.RevertServerResize(server_id=web)
    yield report()
    yield demo, c.ResizeServer(server_id=web, flavor_id="m")
    yield report()
    yield other, c.ConfirmServerResize(server_id=web)
    yield demo, c.ConfirmServerResize(server_id=web)
    yield demo, c.ResizeServer(server_id=web, flavor_id="s")
    yield demo, c.ResizeServer(server_id=web, flavor_id="l")
    yield report()
    yield demo, c.ConfirmServerResize(server_id=web)


def _trespasses(world: World) -> Iterator[tuple[Actor, Any]]:
    """What is not for those who ask for it, or about nothing that is there."""
    demo, other = world.actors["demo"], world.actors["other"]
    grant = {"user_id": demo.user_id, "project_id": demo.project_id, "role_id": "none"}
    yield SYSTEM, i.Bootstrap(admin_password=SECRET)
    yield demo, i.CreateUser(name="friend", password=SECRET)
    yield (
        demo,
        a.RefuseRequest(
            api="compute",
            method="POST",
            route="/v2.1/servers",
            action="CreateServer",
            code="InvalidInput",
            status=400,
            reason="the body is not JSON",
        ),
    )
    yield demo, i.UpdateProject(project_id=demo.project_id, description="mine")
    yield other, i.DeleteUser(user_id=demo.user_id)
    yield demo, i.GrantRole(**grant)
    yield world.admin, i.RevokeRole(**grant)
    yield world.agent("host-1"), i.RevokeToken(audit_id="audit-demo", expires_at=world.now)
    yield demo, c.CreateKeypair(name="mine", public_key="ssh-ed25519 AAAA")
    yield other, c.DeleteFlavor(flavor_id="s")
    yield demo, c.RenameServer(server_id="none", name="some")
    yield demo, c.RebootServer(server_id="none")
    server = next(iter(world.cell.state.servers))
    boot = world.cell.state.servers[server].boot
    seen = {"boot": boot, "running": False, "observed_at": world.now}
    yield world.agent("host-2"), c.ReportServerState(server_id=server, **seen)
    yield demo, m.UpdateImage(image_id="none", tags=("small",))
    yield demo, n.DeleteSubnet(subnet_id="none")
    yield demo, h.MarkHost(host_id="host-1", status="down")
    yield demo, o.PassDeadline(operation_id="none", generation=1)
    yield demo, e.ConfirmLead(epoch=1, node="node-1")
    yield demo, e.RollLog(number=2)
    yield world.admin, e.RollLog(number=2)
    yield SYSTEM, e.RollLog(number=3)
    yield SYSTEM, e.RollLog(number=2)
    yield SYSTEM, e.RollLog(number=2)


def _webhooks(world: World) -> Iterator[tuple[Actor, Any]]:
    """One that is given up and enabled again, and one that goes with its project."""
    demo, other, state = world.actors["demo"], world.actors["other"], world.cell.state

    def secret(actor: Actor) -> Any:
        return replace(SECRET, key_id=state.projects[actor.project_id].secrets_key_id)

    asked = w.CreateWebhook(name="hook", url="https://example.org/hook", secret=secret(demo))
    yield demo, asked
    yield other, asked  # sealed by another's key
    (hook,) = state.webhooks.values()
    mine = {"webhook_id": hook.webhook_id}
    yield other, w.DeleteWebhook(**mine)
    yield other, w.UpdateWebhook(**mine, name="mine")
    yield demo, w.UpdateWebhook(**mine, types=("compute.server.",))
    yield demo, w.UpdateWebhook(**mine, enabled=True)
    yield demo, w.RedeliverWebhook(**mine, after=1)
    yield demo, w.RedeliverWebhook(**mine)
    yield other, w.RedeliverWebhook(**mine)
    yield demo, w.GiveUpWebhook(**mine, cause="mine", updated_at=0)
    yield SYSTEM, w.GiveUpWebhook(**mine, cause="an older one", updated_at=0)
    updated_at = state.webhooks[hook.webhook_id].updated_at
    yield SYSTEM, w.GiveUpWebhook(**mine, cause="it is gone", updated_at=updated_at)
    yield demo, w.UpdateWebhook(**mine, enabled=True)
    yield demo, w.DeleteWebhook(**mine)
    yield demo, w.DeleteWebhook(**mine)
    left = w.CreateWebhook(name="left", url="http://example.org/", secret=secret(other))
    yield other, left


def _farewell(world: World) -> Iterator[tuple[Actor, Any]]:
    admin, other = world.admin, world.actors["other"]
    member = next(r.role_id for r in world.cell.state.roles.values() if r.name == "member")
    yield admin, i.DeleteProject(project_id=admin.project_id)
    yield (
        admin,
        i.RevokeRole(user_id=other.user_id, project_id=other.project_id, role_id=member),
    )
    yield admin, i.DeleteUser(user_id=other.user_id)
    yield admin, i.DeleteProject(project_id=other.project_id)
    yield admin, i.DeleteProject(project_id=other.project_id)
