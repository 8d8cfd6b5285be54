"""Networks, subnets, ports and security groups: what may exist, and which addresses they hold."""

from engine.domain.network.group import default_group as default_group
from engine.domain.network.group import group_created as group_created
from engine.domain.network.group import group_deleted as group_deleted
from engine.domain.network.group import groups_of as groups_of
from engine.domain.network.network import create_network as create_network
from engine.domain.network.network import delete_network as delete_network
from engine.domain.network.network import network_created as network_created
from engine.domain.network.network import network_deleted as network_deleted
from engine.domain.network.network import own_network as own_network
from engine.domain.network.network import usable_network as usable_network
from engine.domain.network.plug import create_port as create_port
from engine.domain.network.plug import delete_port as delete_port
from engine.domain.network.plug import port_created as port_created
from engine.domain.network.plug import port_deleted as port_deleted
from engine.domain.network.plug import port_updated as port_updated
from engine.domain.network.port import DHCP_OWNER as DHCP_OWNER
from engine.domain.network.port import SERVER_OWNER as SERVER_OWNER
from engine.domain.network.port import changed_port as changed_port
from engine.domain.network.port import free_mac as free_mac
from engine.domain.network.port import may_choose as may_choose
from engine.domain.network.port import new_port as new_port
from engine.domain.network.subnet import create_subnet as create_subnet
from engine.domain.network.subnet import delete_subnet as delete_subnet
from engine.domain.network.subnet import subnet_created as subnet_created
from engine.domain.network.subnet import subnet_deleted as subnet_deleted
