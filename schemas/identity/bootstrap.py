"""The first action of a cloud: who there is before anybody can be asked."""

from msgspec import Struct

from schemas.identity.values import IdentityName
from schemas.sealed import Sealed


class Bootstrap(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Make the Default domain, the roles, the admin project and the first administrator.

    Accepted once in a log's life, and only from the system.
    """

    admin_password: Sealed
    admin_name: IdentityName = "admin"
    project_name: IdentityName = "admin"
    project_key_id: str = ""
