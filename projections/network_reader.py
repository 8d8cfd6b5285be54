"""Reads of networks, subnets, ports, security groups.

``visible_to`` a project means its own and what is shared with it; None means everything.
"""

from collections.abc import Sequence

from projections.connection import Connections
from projections.network import NETWORKS, PORTS, SECURITY_GROUPS, SUBNETS
from projections.query import OLDEST_FIRST, Query, Sort
from schemas.network import Network, Port, SecurityGroup, Subnet

_NETWORK_SEEN = "(project_id = ? OR shared)"
_SUBNET_SEEN = "(project_id = ? OR network_id IN (SELECT id FROM networks WHERE shared))"


class NetworkReader(Connections):
    """See ``reader.Reader``."""

    def network(self, network_id: str, *, visible_to: str | None = None) -> Network | None:
        """Return a network; ``visible_to`` a project means its own or a shared one."""
        network = self.one(NETWORKS, network_id)
        if network is None or network.shared or visible_to in {None, network.project_id}:
            return network
        return None

    def networks(
        self,
        *,
        visible_to: str | None = None,
        project_id: str | None = None,
        ids: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        shared: bool | None = None,
        sort: Sort = OLDEST_FIRST,
        marker: str | None = None,
        limit: int | None = None,
    ) -> list[Network]:
        """Return networks; ``visible_to`` a project means its own and shared ones.

        Sort columns here and below: id, name, project_id, created_at.
        """
        query = Query(NETWORKS).among(id=ids, name=names)
        if visible_to is not None:
            query.within(_NETWORK_SEEN, visible_to)
        return self.page(query.equal(project_id=project_id, shared=shared), sort, marker, limit)

    def subnet(self, subnet_id: str, *, visible_to: str | None = None) -> Subnet | None:
        """Return a subnet; ``visible_to`` a project includes those of shared networks."""
        subnet = self.one(SUBNETS, subnet_id)
        if subnet is None or visible_to in {None, subnet.project_id}:
            return subnet
        network = self.one(NETWORKS, subnet.network_id)
        return subnet if network is not None and network.shared else None

    def subnets(
        self,
        *,
        visible_to: str | None = None,
        project_id: str | None = None,
        ids: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        network_ids: Sequence[str] | None = None,
        sort: Sort = OLDEST_FIRST,
        marker: str | None = None,
        limit: int | None = None,
    ) -> list[Subnet]:
        """Return subnets; ``visible_to`` includes those of shared networks."""
        query = Query(SUBNETS).among(id=ids, name=names, network_id=network_ids)
        if visible_to is not None:
            query.within(_SUBNET_SEEN, visible_to)
        return self.page(query.equal(project_id=project_id), sort, marker, limit)

    def port(self, port_id: str, *, project_id: str | None = None) -> Port | None:
        """Return a port."""
        port = self.one(PORTS, port_id)
        return port if port is None or project_id in {None, port.project_id} else None

    def ports(
        self,
        *,
        project_id: str | None = None,
        ids: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        network_ids: Sequence[str] | None = None,
        device_ids: Sequence[str] | None = None,
        device_owners: Sequence[str] | None = None,
        mac_address: str | None = None,
        host_id: str | None = None,
        status: str | None = None,
        subnet_id: str | None = None,
        ip_address: str | None = None,
        sort: Sort = OLDEST_FIRST,
        marker: str | None = None,
        limit: int | None = None,
    ) -> list[Port]:
        """Return ports; ``project_id`` is also what may be seen."""
        query = Query(PORTS).among(id=ids, name=names, network_id=network_ids)
        query.among(device_id=device_ids, device_owner=device_owners)
        if project_id is not None:
            query.within("project_id = ?", project_id)
        query.equal(mac_address=mac_address, host_id=host_id, status=status)
        query.holding(subnet_ids=subnet_id, ip_addresses=ip_address)
        return self.page(query, sort, marker, limit)

    def security_group(
        self, group_id: str, *, project_id: str | None = None
    ) -> SecurityGroup | None:
        """Return a security group."""
        group = self.one(SECURITY_GROUPS, group_id)
        return group if group is None or project_id in {None, group.project_id} else None

    def security_groups(
        self,
        *,
        project_id: str | None = None,
        ids: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        sort: Sort = OLDEST_FIRST,
        marker: str | None = None,
        limit: int | None = None,
    ) -> list[SecurityGroup]:
        """Return security groups."""
        query = Query(SECURITY_GROUPS).among(id=ids, name=names)
        if project_id is not None:
            query.within("project_id = ?", project_id)
        return self.page(query, sort, marker, limit)
