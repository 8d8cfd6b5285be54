"""What all of identity's schemas share: bounds of names, tags and further attributes."""

from typing import Annotated

from msgspec import Meta

IdentityName = Annotated[str, Meta(min_length=1, max_length=64)]
UserName = Annotated[str, Meta(min_length=1, max_length=255)]
RoleNameText = Annotated[str, Meta(min_length=1, max_length=255)]

Tag = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^,/]+\Z")]
Tags = Annotated[tuple[Tag, ...], Meta(max_length=80)]

_Key = Annotated[str, Meta(min_length=1, max_length=64)]
_Text = Annotated[str, Meta(max_length=4096)]
_Number = Annotated[int, Meta(ge=-(2**53 - 1), le=2**53 - 1)]
# Attributes that the API does not know: kept and given back. Numbers are whole, for the log's sake.
Extra = Annotated[dict[_Key, _Text | _Number | bool | None], Meta(max_length=32)]
