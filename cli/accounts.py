"""The accounts of an embedded cloud, as clients read them: clouds.yaml and openrc.

Written at each start, so that they name the address that the API listens on now.
"""

import json
import shlex

from cli.credentials import Cloud
from cli.state import State, write_private

REGION = "RegionOne"
# A cloud of clouds.yaml, and whose account it is.
CLOUDS = {"cumulog": "admin", "cumulog-demo": "demo"}


def account(state: State, url: str, name: str, authority: str = "") -> Cloud:
    """Return one of the accounts of ``CLOUDS``."""
    known = state.credentials()[CLOUDS[name]]
    return Cloud(
        url=url,
        username=known["username"],
        password=known["password"],
        project=known["project_name"],
        authority=authority,
    )


def write_accounts(state: State, url: str, authority: str = "") -> None:
    """Write clouds.yaml with both accounts, and openrc with the administrator's.

    ``authority`` is the file of who vouches for the API's certificate, if the system does not know.
    """
    lines = ["# Written by `cumulog up` at each start.", "clouds:"]
    for name in CLOUDS:
        cloud = account(state, url, name)
        lines += [
            f"  {name}:",
            "    auth:",
            f"      auth_url: {url}/identity/v3",
            f"      username: {cloud.username}",
            f"      password: {cloud.password!r}",
            f"      project_name: {cloud.project}",
            "      user_domain_name: Default",
            "      project_domain_name: Default",
            f"    region_name: {REGION}",
            "    interface: public",
            "    identity_api_version: 3",
            *([f"    cacert: {json.dumps(authority)}"] if authority else ()),
        ]
    write_private(state.clouds_file, "\n".join(lines) + "\n")
    admin = account(state, url, "cumulog")
    variables = {
        "OS_AUTH_URL": f"{url}/identity/v3",
        "OS_USERNAME": admin.username,
        "OS_PASSWORD": admin.password,
        "OS_PROJECT_NAME": admin.project,
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
        "OS_REGION_NAME": REGION,
        "OS_INTERFACE": "public",
        "OS_IDENTITY_API_VERSION": "3",
    } | ({"OS_CACERT": authority} if authority else {})
    script = [f"export {key}={shlex.quote(value)}" for key, value in variables.items()]
    write_private(state.openrc_file, "\n".join(script) + "\n")
