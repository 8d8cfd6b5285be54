"""Units and bounds shared by every schema.

Times are integer microseconds since the Unix epoch, UTC: exact under addition, and below 2**53, so
that a log read by any JSON program (RFC 8785, I-JSON) keeps every digit. Sizes carry their unit in
the name (``memory_mib``, ``disk_gib``, ``size_bytes``).
"""

from typing import Annotated

from msgspec import Meta

Micros = Annotated[int, Meta(ge=0, le=2**53 - 1, description="Microseconds since the epoch, UTC.")]
Ordinal = Annotated[int, Meta(ge=0, le=2**53 - 1, description="Position in the log, from 1.")]

Name = Annotated[str, Meta(min_length=1, max_length=255)]
Text = Annotated[str, Meta(max_length=255)]
LongText = Annotated[str, Meta(max_length=4096)]

Vcpus = Annotated[int, Meta(ge=1, le=1024)]
MemoryMib = Annotated[int, Meta(ge=1, le=16 * 1024 * 1024)]
DiskGib = Annotated[int, Meta(ge=0, le=1024 * 1024)]
SizeBytes = Annotated[int, Meta(ge=0, le=2**53 - 1)]

Cidr = Annotated[str, Meta(max_length=64)]
IpAddress = Annotated[str, Meta(max_length=45)]
MacAddress = Annotated[str, Meta(pattern=r"^([0-9a-f]{2}:){5}[0-9a-f]{2}\Z")]

SECOND: int = 1_000_000
MINUTE: int = 60 * SECOND
HOUR: int = 3600 * SECOND
DAY: int = 24 * HOUR
