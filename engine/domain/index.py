"""The lookups of a state, made anew from it alone.

Invariant: equal to what folding the log has left, so that an engine that began from a snapshot
decides as one that replayed everything.
"""

from collections import Counter, defaultdict

from engine.domain.compute.evolve import held as held_of
from engine.domain.compute.evolve import room_held
from engine.domain.ipam import address_number, spans_of
from engine.domain.placement import rank_of, takes_servers
from engine.domain.state import Index, State, Usage


def index_of(state: State) -> Index:
    """Return the lookups that folding to this state would have left."""
    index = Index()
    _identity(state, index)
    _credentials(state, index)
    _catalog(state, index)
    _compute(state, index)
    _image(state, index)
    _network(state, index)
    _operation(state, index)
    _webhook(state, index)
    _alarm(state, index)
    _usage(state, index)
    return index


def _identity(state: State, index: Index) -> None:
    index.domain_names = {domain.name: domain.domain_id for domain in state.domains.values()}
    for project in state.projects.values():
        index.project_names[project.domain_id, project.name] = project.project_id
        _add(index.domain_projects, project.domain_id, project.project_id)
        if project.parent_id:
            _add(index.project_children, project.parent_id, project.project_id)
    for user in state.users.values():
        index.user_names[user.domain_id, user.name] = user.user_id
        _add(index.domain_users, user.domain_id, user.user_id)
    for group in state.groups.values():
        index.group_names[group.domain_id, group.name] = group.group_id
        _add(index.domain_groups, group.domain_id, group.group_id)
    for user_id, group_ids in state.memberships.items():
        for group_id in group_ids:
            _add(index.group_members, group_id, user_id)
    for role in state.roles.values():
        index.role_names[role.domain_id, role.name] = role.role_id
        if role.domain_id:
            _add(index.domain_roles, role.domain_id, role.role_id)
    for grants in (state.grants, state.inherited_grants):
        for holder, targets in grants.items():
            for target in targets:
                _add(index.target_holders, target, holder)


def _credentials(state: State, index: Index) -> None:
    for ident, application in state.application_credentials.items():
        _add(index.user_application_credentials, application.user_id, ident)
        _add(index.project_application_credentials, application.project_id, ident)
    for ident, credential in state.credentials.items():
        _add(index.user_credentials, credential.user_id, ident)
        if credential.project_id:
            _add(index.project_credentials, credential.project_id, ident)
    for ident, trust in state.trusts.items():
        _add(index.user_trusts, trust.trustor_user_id, ident)
        _add(index.user_trusts, trust.trustee_user_id, ident)
        if trust.project_id:
            _add(index.project_trusts, trust.project_id, ident)
        if trust.redelegated_trust_id:
            _add(index.redelegated_trusts, trust.redelegated_trust_id, ident)


def _catalog(state: State, index: Index) -> None:
    for ident, region in state.regions.items():
        if region.parent_region_id:
            _add(index.region_children, region.parent_region_id, ident)
    for ident, endpoint in state.endpoints.items():
        _add(index.service_endpoints, endpoint.service_id, ident)
        if endpoint.region_id:
            _add(index.region_endpoints, endpoint.region_id, ident)


def _add(groups: dict[str, set[str]], key: str, member: str) -> None:
    groups.setdefault(key, set()).add(member)


def _compute(state: State, index: Index) -> None:
    usages: dict[str, Usage] = defaultdict(Usage, {host_id: Usage() for host_id in state.hosts})
    projects: dict[str, set[str]] = defaultdict(set)
    hosts: dict[str, set[str]] = defaultdict(set)
    for server_id, server in state.servers.items():
        projects[server.project_id].add(server_id)
        host_id = server.host_id
        if host_id is not None:
            hosts[host_id].add(server_id)
            usage, room = usages[host_id], room_held(server)
            usage.vcpus += room.vcpus
            usage.memory_mib += room.memory_mib
            usage.disk_gib += room.disk_gib
    index.host_usage = dict(usages)
    index.host_rank = {
        host_id: rank_of(host, index.host_usage[host_id])
        for host_id, host in state.hosts.items()
        if takes_servers(host)
    }
    index.hosts_by_room = sorted((rank, host_id) for host_id, rank in index.host_rank.items())
    index.project_servers, index.host_servers = dict(projects), dict(hosts)


def _image(state: State, index: Index) -> None:
    for image in state.images.values():
        index.project_images.setdefault(image.project_id, set()).add(image.image_id)


def _network(state: State, index: Index) -> None:
    for network in state.networks.values():
        index.project_networks.setdefault(network.project_id, set()).add(network.network_id)
    index.vnis = {network.vni for network in state.networks.values()}
    index.shared_networks = {n.network_id for n in state.networks.values() if n.shared}
    for subnet in state.subnets.values():
        index.network_subnets.setdefault(subnet.network_id, {})[subnet.subnet_id] = None
        index.subnet_spans[subnet.subnet_id] = spans_of(subnet)
    _ports(state, index)
    for group in state.security_groups.values():
        index.project_groups.setdefault(group.project_id, set()).add(group.security_group_id)


def _ports(state: State, index: Index) -> None:
    # Most of the time goes here when there are many servers, so nothing is made to be thrown away.
    projects: dict[str, set[str]] = defaultdict(set)
    networks: dict[str, set[str]] = defaultdict(set)
    devices: dict[str, set[str]] = defaultdict(set)
    groups: dict[str, set[str]] = defaultdict(set)
    used: dict[str, dict[int, str]] = defaultdict(dict)
    for port_id, port in state.ports.items():
        projects[port.project_id].add(port_id)
        networks[port.network_id].add(port_id)
        if port.device_id:
            devices[port.device_id].add(port_id)
        for group_id in port.security_group_ids:
            groups[group_id].add(port_id)
        for fixed in port.fixed_ips:
            used[fixed.subnet_id][address_number(fixed.ip_address)] = port_id
    index.macs = {port.mac_address for port in state.ports.values()}
    index.project_ports, index.network_ports = dict(projects), dict(networks)
    index.device_ports, index.group_ports = dict(devices), dict(groups)
    index.subnet_used = dict(used)


def _webhook(state: State, index: Index) -> None:
    for webhook in state.webhooks.values():
        _add(index.project_webhooks, webhook.project_id, webhook.webhook_id)


def _alarm(state: State, index: Index) -> None:
    for alarm in state.alarms.values():
        _add(index.project_alarms, alarm.project_id, alarm.alarm_id)


def _operation(state: State, index: Index) -> None:
    for operation in state.operations.values():
        index.host_operations.setdefault(operation.host_id, set()).add(operation.operation_id)


def _usage(state: State, index: Index) -> None:
    """Count everything there is, knowing nothing of the facts that made it."""
    usage: dict[str, dict[str, int]] = defaultdict(dict)
    for project_id, server_ids in index.project_servers.items():
        servers = [held_of(state.servers[server_id]) for server_id in server_ids]
        held = usage[project_id]
        held["servers"] = len(servers)
        held["vcpus"] = sum(server.vcpus for server in servers)
        held["memory_mib"] = sum(server.memory_mib for server in servers)
        held["disk_gib"] = sum(server.disk_gib for server in servers)
    for name, groups in (
        ("networks", index.project_networks),
        ("ports", index.project_ports),
        ("security_groups", index.project_groups),
        ("images", index.project_images),
    ):
        for owner, members in groups.items():
            usage[owner][name] = len(members)
    for project_id, subnets in Counter(s.project_id for s in state.subnets.values()).items():
        usage[project_id]["subnets"] = subnets
    for name, sizes in (
        ("image_bytes", [(i.project_id, i.size_bytes or 0) for i in state.images.values()]),
        (
            "security_group_rules",
            [(g.project_id, len(g.rules)) for g in state.security_groups.values()],
        ),
    ):
        for project_id, size in sizes:
            if size:
                usage[project_id][name] = usage[project_id].get(name, 0) + size
    index.usage = dict(usage)
