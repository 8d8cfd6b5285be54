"""Identifiers.

Compute, image and network resources have UUIDs with dashes, identity objects 32 hexadecimal digits
(``default`` excepted), as OpenStack clients expect. Ids are opaque: nothing is read out of them.

``Id``, ``FreeId`` and ``GivenHostId`` are what a request may name, checked when it is decoded. The
others are the same ids in resources and facts: to check them again would cost most of a replay.
"""

from typing import Annotated

from msgspec import Meta

Id = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+\Z")]
# An id, or "" where another field says what is meant.
IdOrNone = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9_.:-]*\Z")]
FreeId = Annotated[str, Meta(min_length=1, max_length=255)]
GivenHostId = Annotated[
    str, Meta(min_length=1, max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")
]

RequestId = str
ProjectId = str
UserId = str
DomainId = str
RoleId = str
ServerId = str
FlavorId = str
ImageId = str
NetworkId = str
SubnetId = str
PortId = str
SecurityGroupId = str
OperationId = str
HostId = str
Cell = Annotated[
    str, Meta(min_length=1, max_length=32, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")
]

DEFAULT_DOMAIN: str = "default"
SYSTEM_USER: str = "system"
