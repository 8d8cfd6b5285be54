"""Identifiers.

Compute, image and network resources have UUIDs with dashes, identity objects 32 hexadecimal digits
(``default`` excepted), as OpenStack clients expect. Ids are opaque: nothing is read out of them.
"""

from typing import Annotated

from msgspec import Meta

Id = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+\Z")]
FreeId = Annotated[str, Meta(min_length=1, max_length=255)]

RequestId = Id
ProjectId = Id
UserId = Id
DomainId = Id
RoleId = Id
ServerId = Id
FlavorId = FreeId
ImageId = Id
NetworkId = Id
SubnetId = Id
PortId = Id
SecurityGroupId = Id
OperationId = Id
HostId = Annotated[
    str, Meta(min_length=1, max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")
]
Cell = Annotated[
    str, Meta(min_length=1, max_length=32, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")
]

DEFAULT_DOMAIN: str = "default"
SYSTEM_USER: str = "system"
