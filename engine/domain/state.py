"""The whole state of a cell, in memory: a fold of its log.

``State`` holds what the digest covers. ``Index`` holds what can be computed from it and is kept up
to date by the same functions, so that no decision scans. Nothing here refuses: facts have happened.
"""

import hashlib
from collections import deque
from collections.abc import Iterator

import msgspec
from msgspec import Struct, field

from schemas.alarm import Alarm
from schemas.billing import (
    BillingSettings,
    Budget,
    Closing,
    Credit,
    Customer,
    Invoice,
    LineCorrection,
    Payer,
    PriceList,
)
from schemas.compute import Flavor, Keypair, Server
from schemas.envelope import Accepted, Refused
from schemas.host import Host
from schemas.identity import (
    AccessRule,
    ApplicationCredential,
    Credential,
    Domain,
    Endpoint,
    FederatedUser,
    Group,
    IdentityProvider,
    Mapping,
    PasswordPolicy,
    Project,
    Protocol,
    Region,
    Role,
    Service,
    Trust,
    User,
)
from schemas.image import Image
from schemas.metering import MeterDefinition
from schemas.network import Network, Port, SecurityGroup, Subnet
from schemas.operation import Operation
from schemas.policy import PolicyTable
from schemas.units import Micros, Ordinal
from schemas.webhook import Webhook


class Answered(Struct, frozen=True, kw_only=True):
    """An outcome remembered, so that a repeated request gets the same answer."""

    ordinal: Ordinal
    at: Micros
    digest: str
    request_id: str
    verdict: Accepted | Refused


class Usage(Struct, kw_only=True):
    """Room that servers hold on one host."""

    vcpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0


class Index(Struct, kw_only=True):
    """Lookups that follow from the state: ``engine.domain.index`` makes the same from it alone.

    So what only history would tell (an order of sets, who was there before) has no place here, and
    nothing empty is kept but the usage of hosts.
    """

    domain_names: dict[str, str] = field(default_factory=dict)
    project_names: dict[tuple[str, str], str] = field(default_factory=dict)
    user_names: dict[tuple[str, str], str] = field(default_factory=dict)
    group_names: dict[tuple[str, str], str] = field(default_factory=dict)
    role_names: dict[tuple[str, str], str] = field(default_factory=dict)  # "": of no domain
    domain_projects: dict[str, set[str]] = field(default_factory=dict)
    domain_users: dict[str, set[str]] = field(default_factory=dict)
    domain_groups: dict[str, set[str]] = field(default_factory=dict)
    domain_roles: dict[str, set[str]] = field(default_factory=dict)
    project_children: dict[str, set[str]] = field(default_factory=dict)
    group_members: dict[str, set[str]] = field(default_factory=dict)
    # Who was given any role on a project, a domain or the system.
    target_holders: dict[str, set[str]] = field(default_factory=dict)
    user_application_credentials: dict[str, set[str]] = field(default_factory=dict)
    project_application_credentials: dict[str, set[str]] = field(default_factory=dict)
    user_credentials: dict[str, set[str]] = field(default_factory=dict)
    project_credentials: dict[str, set[str]] = field(default_factory=dict)
    user_trusts: dict[str, set[str]] = field(default_factory=dict)  # as trustor or trustee
    project_trusts: dict[str, set[str]] = field(default_factory=dict)
    redelegated_trusts: dict[str, set[str]] = field(default_factory=dict)
    service_endpoints: dict[str, set[str]] = field(default_factory=dict)
    region_endpoints: dict[str, set[str]] = field(default_factory=dict)
    region_children: dict[str, set[str]] = field(default_factory=dict)
    host_usage: dict[str, Usage] = field(default_factory=dict)
    # (rank, host) of the hosts that take servers, most memory free first; see placement.
    hosts_by_room: list[tuple[int, str]] = field(default_factory=list)
    host_rank: dict[str, int] = field(default_factory=dict)
    fullest_first: bool = False  # only to see what would have been: see ``engine.rerun``
    host_servers: dict[str, set[str]] = field(default_factory=dict)
    project_servers: dict[str, set[str]] = field(default_factory=dict)
    project_images: dict[str, set[str]] = field(default_factory=dict)
    project_networks: dict[str, set[str]] = field(default_factory=dict)
    project_ports: dict[str, set[str]] = field(default_factory=dict)
    project_groups: dict[str, set[str]] = field(default_factory=dict)
    shared_networks: set[str] = field(default_factory=set)
    network_subnets: dict[str, dict[str, None]] = field(default_factory=dict)  # as they were made
    network_ports: dict[str, set[str]] = field(default_factory=dict)
    device_ports: dict[str, set[str]] = field(default_factory=dict)
    group_ports: dict[str, set[str]] = field(default_factory=dict)
    macs: set[str] = field(default_factory=set)
    vnis: set[int] = field(default_factory=set)
    subnet_used: dict[str, dict[int, str]] = field(default_factory=dict)  # address -> port
    subnet_spans: dict[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)  # pools
    host_operations: dict[str, set[str]] = field(default_factory=dict)
    project_webhooks: dict[str, set[str]] = field(default_factory=dict)
    project_alarms: dict[str, set[str]] = field(default_factory=dict)
    # How much of what each project holds; see usage.
    usage: dict[str, dict[str, int]] = field(default_factory=dict)


class State(Struct, kw_only=True):
    """Everything decisions depend on. Values are frozen; evolving replaces them."""

    epoch: int = 0
    log_number: int = 1  # the stream that takes commits
    ordinal: Ordinal = 0
    at: Micros = 0
    bootstrapped: bool = False
    domains: dict[str, Domain] = field(default_factory=dict)
    projects: dict[str, Project] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    memberships: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of users
    # By holder (user or group) and target (project, domain or "system"): ids of roles.
    grants: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    # Likewise, but on the projects below the target.
    inherited_grants: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    implied_roles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    application_credentials: dict[str, ApplicationCredential] = field(default_factory=dict)
    access_rules: dict[str, dict[str, AccessRule]] = field(default_factory=dict)  # by user
    credentials: dict[str, Credential] = field(default_factory=dict)
    trusts: dict[str, Trust] = field(default_factory=dict)
    regions: dict[str, Region] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    identity_providers: dict[str, IdentityProvider] = field(default_factory=dict)
    mappings: dict[str, Mapping] = field(default_factory=dict)
    protocols: dict[str, dict[str, Protocol]] = field(default_factory=dict)  # of providers
    federated: dict[str, FederatedUser] = field(default_factory=dict)  # by user
    password_policy: PasswordPolicy = PasswordPolicy()
    revoked_tokens: dict[str, Micros] = field(default_factory=dict)
    flavors: dict[str, Flavor] = field(default_factory=dict)
    keypairs: dict[str, dict[str, Keypair]] = field(default_factory=dict)
    servers: dict[str, Server] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    networks: dict[str, Network] = field(default_factory=dict)
    subnets: dict[str, Subnet] = field(default_factory=dict)
    # Where to look for a subnet's next free address, as a number: after the one given last, which
    # may be free again, so it does not follow from the ports.
    subnet_hint: dict[str, int] = field(default_factory=dict)
    ports: dict[str, Port] = field(default_factory=dict)
    security_groups: dict[str, SecurityGroup] = field(default_factory=dict)
    hosts: dict[str, Host] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)  # open ones
    webhooks: dict[str, Webhook] = field(default_factory=dict)
    price_lists: dict[str, tuple[PriceList, ...]] = field(default_factory=dict)
    withdrawn: dict[str, int] = field(default_factory=dict)  # of price lists, the newest version
    meters: dict[str, tuple[MeterDefinition, ...]] = field(default_factory=dict)  # versions
    alarms: dict[str, Alarm] = field(default_factory=dict)
    sampled: dict[str, dict[str, Micros]] = field(default_factory=dict)  # last hour, by monitor
    customers: dict[str, tuple[Customer, ...]] = field(default_factory=dict)  # their versions
    payers: dict[str, tuple[Payer, ...]] = field(default_factory=dict)  # of projects, as time goes
    credits: dict[str, Credit] = field(default_factory=dict)
    credits_used: dict[str, dict[str, str]] = field(default_factory=dict)  # by invoice
    billing: BillingSettings = BillingSettings()
    periods: dict[str, Closing] = field(default_factory=dict)  # closed months; no invoices in it
    invoices: dict[str, Invoice] = field(default_factory=dict)
    invoices_issued: int = 0
    corrections: dict[str, LineCorrection] = field(default_factory=dict)
    budgets: dict[str, Budget] = field(default_factory=dict)
    quotas: dict[str, dict[str, int]] = field(default_factory=dict)  # limits, by project and name
    quota_class: dict[str, int] = field(default_factory=dict)  # for projects without their own
    answered: dict[str, Answered] = field(default_factory=dict)  # by request id, for two minutes
    keyed: dict[str, Answered] = field(default_factory=dict)  # by idempotency key, for a day
    policy: PolicyTable = PolicyTable()


class Cell:
    """A state with its index and the queues that let old answers go."""

    def __init__(self) -> None:
        self.state = State()
        self.index = Index()
        self.answered_queue: deque[tuple[Micros, str]] = deque()
        self.keyed_queue: deque[tuple[Micros, str]] = deque()


def drop_member[K](
    groups: dict[str, set[K]] | dict[str, dict[K, None]] | dict[str, dict[K, str]],
    key: str,
    member: K,
) -> None:
    """Take a member out of its group in a lookup, and the group with the last one."""
    members = groups[key]
    if isinstance(members, set):
        members.discard(member)
    else:
        members.pop(member, None)
    if not members:
        del groups[key]


_sorted = msgspec.json.Encoder(order="sorted")


def digest(cell: Cell) -> str:
    """Return the SHA-256 (hex) of the state as canonical JSON.

    Equal logs give equal digests, whatever machine or process folded them.
    """
    return state_digest(cell.state)


def state_digest(state: State) -> str:
    """Return the SHA-256 (hex) of a state as canonical JSON: one object, sorted keys, no spaces.

    Taken piece by piece: as one text, that of a large state would hold up all other threads while
    it is made, and take its size over again.
    """
    summary = hashlib.sha256()
    for piece in _canonical(state):
        summary.update(piece)
    return summary.hexdigest()


def _canonical(state: State) -> Iterator[bytes]:
    before = b"{"
    for name in sorted(State.__struct_fields__):
        yield before + _sorted.encode(name) + b":"
        before = b","
        value = getattr(state, name)
        if not isinstance(value, dict):
            yield _sorted.encode(value)
            continue
        opening = b"{"
        for key in sorted(value):
            yield opening + _sorted.encode(key) + b":" + _sorted.encode(value[key])
            opening = b","
        yield b"{}" if opening == b"{" else b"}"
    yield b"}"
