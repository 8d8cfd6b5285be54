"""Where a cloud's things lie on a host, and what they are called.

Every name begins with a prefix worked out from the state directory, so that two clouds on one
machine never meet, and so that what belongs to a cloud can be found when nothing of it runs. The
same directory always gives the same names.
"""

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path

_LINK_NAME_BYTES = 15  # IFNAMSIZ without its zero byte


def _hex(identifier: str, digits: int) -> str:
    """Return a short form of an id: its last hex digits, or the first of its hash.

    The first digits of a UUID may be a clock's (version 7), and equal for ids made together.
    """
    try:
        return uuid.UUID(identifier).hex[-digits:]
    except ValueError:
        return hashlib.sha256(identifier.encode()).hexdigest()[:digits]


def _link(prefix: str, identifier: str) -> str:
    return prefix + _hex(identifier, _LINK_NAME_BYTES - len(prefix))


@dataclass(frozen=True)
class Layout:
    """Paths under ``DIR/host`` and names in the kernel and in libvirt."""

    state_dir: Path

    @classmethod
    def of(cls, state_dir: Path | str) -> "Layout":
        """Return the layout of a state directory, wherever it was named from."""
        return cls(Path(state_dir).resolve())

    @property
    def prefix(self) -> str:
        """Nine characters that no other state directory on this machine has."""
        return "cl" + hashlib.sha256(str(self.state_dir).encode()).hexdigest()[:7]

    # Paths

    @property
    def host(self) -> Path:
        """Everything that an agent keeps."""
        return self.state_dir / "host"

    @property
    def blobs(self) -> Path:
        """Where the edges put images."""
        return self.state_dir / "blobs"

    @property
    def images(self) -> Path:
        """Images whose content was checked, by blob id: the base of root disks."""
        return self.host / "images"

    @property
    def servers(self) -> Path:
        """A directory per server on this host."""
        return self.host / "servers"

    @property
    def libvirt(self) -> Path:
        """What the hand-started libvirt daemon takes for /etc/libvirt, /run/libvirt and so on."""
        return self.host / "libvirt"

    @property
    def network(self) -> Path:
        """DHCP configuration and the numbers that packet rules use."""
        return self.host / "network"

    def server(self, server_id: str) -> Path:
        """Return a server's directory: disk.qcow2, console.log, state.json."""
        return self.servers / server_id

    def disk(self, server_id: str) -> Path:
        """Return a server's root disk."""
        return self.server(server_id) / "disk.qcow2"

    def console(self, server_id: str) -> Path:
        """Return what a server's serial console said."""
        return self.server(server_id) / "console.log"

    # Names

    @property
    def host_namespace(self) -> str:
        """The network namespace of bridges, taps, packet rules and libvirt."""
        return self.prefix

    def network_namespace(self, network_id: str) -> str:
        """Return the namespace of a network's DHCP and metadata services."""
        return f"{self.prefix}-{_hex(network_id, 12)}"

    def domain(self, server_id: str) -> str:
        """Return the name of a server's domain."""
        return f"{self.prefix}-{server_id}"

    def server_of(self, domain_name: str) -> str | None:
        """Return whose domain this is, or None if it is not this cloud's."""
        prefix = self.prefix + "-"
        return domain_name.removeprefix(prefix) if domain_name.startswith(prefix) else None


def bridge_name(network_id: str) -> str:
    """Return the name of a network's bridge, 15 characters."""
    return _link("br-", network_id)


def tap_name(port_id: str) -> str:
    """Return the name of a port's tap, 15 characters."""
    return _link("tap-", port_id)


def dhcp_link_name(network_id: str) -> str:
    """Return the name of the veth end that joins a network's services to its bridge."""
    return _link("dh-", network_id)


def domain_uuid(server_id: str) -> str:
    """Return the domain's UUID: the server's id where that is one."""
    try:
        return str(uuid.UUID(server_id))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, server_id))


def namespace_path(name: str) -> Path:
    """Return the file that names a network namespace (ip-netns(8))."""
    return Path("/run/netns") / name
