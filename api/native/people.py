"""Names of those who asked, for whoever may know them: records hold opaque ids alone."""

from collections.abc import Iterable

from api.exchange import Call

READ_USERS = "identity:users:read"


def names_of(call: Call, user_ids: Iterable[str]) -> dict[str, str]:
    """Return the names of users by their ids, as far as the caller may read any user, or is it.

    Who is gone has none.
    """
    caller = call.principal
    reach = call.reach_of(READ_USERS)
    if reach is None or not reach.any:
        return {i: caller.user.name for i in user_ids if i == caller.user_id}
    found = {user_id: call.edge.reader.user(user_id) for user_id in sorted(set(user_ids))}
    return {user_id: user.name for user_id, user in found.items() if user is not None}
