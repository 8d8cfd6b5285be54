"""Federation and several factors with the ``openstack`` command, unmodified."""

import base64
import json
import secrets
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from tests.api.conftest import Cloud, fresh
from tests.api.issuer import running
from tests.api.loaded import Loaded
from tests.api.test_clients import Cli
from tests.api.test_federation import RULES, free_port
from tests.cli.running import clean_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Somebody(Cli):
    """The command as somebody who signs in as told, and is in no file."""

    def __init__(self, loaded: Loaded, cloud: Cloud, directory: Path, **told: str) -> None:
        super().__init__(loaded, cloud, "", directory)
        self.environment = clean_environment() | {
            "OS_AUTH_URL": f"{cloud.url}/identity/v3",
            "OS_IDENTITY_API_VERSION": "3",
            **{f"OS_{name.upper()}": value for name, value in told.items()},
        }


def test_an_operator_sets_a_provider_up_and_its_user_signs_in(
    loaded: Loaded,
    cloud: Cloud,
    tmp_path: Path,
):
    operator, name = Cli(loaded, cloud, "cumulog", tmp_path), fresh("corp")
    (tmp_path / "rules.json").write_text(json.dumps(RULES))
    with running(free_port()) as issuer:
        operator(f"mapping create {name} --rules rules.json")
        operator(f"identity provider create {name} --remote-id {name}-remote --enable")
        oidc = {"issuer": issuer.url, "client_id": "cloud"}
        path = f"/identity/v3/OS-FEDERATION/identity_providers/{name}"
        body = {"identity_provider": {"oidc": oidc}}
        assert cloud.admin("PATCH", path, body).status == 200
        protocol = f"openid --identity-provider {name}"
        operator(f"federation protocol create {protocol} --mapping {name}")
        assert name in operator("identity provider list")
        assert name in operator("mapping list")
        assert operator.json(f"federation protocol show {protocol}")["mapping"] == name
        operator(f"group create {name}-crew")
        operator(f"project create {name}")
        operator(f"role add --group {name}-crew --project {name} member")
        claims = {"iss": issuer.url, "aud": "cloud", "sub": "1", "exp": int(time.time()) + 600}
        claims |= {"name": "ann", "email": "ann@example.org", "groups": [f"{name}-crew"]}

        ann = Somebody(
            loaded,
            cloud,
            tmp_path,
            auth_type="v3oidcaccesstoken",
            identity_provider=name,
            protocol="openid",
            access_token=issuer.token(claims),
            project_name=name,
            project_domain_name="Default",
        )

        project = operator.json(f"project show {name}")["id"]
        assert ann.json("token issue")["project_id"] == project
        assert ann.json("server list") == []
        operator(f"identity provider set --disable {name}")
        ann("token issue", code=1)
        operator(f"federation protocol delete {protocol}")
        operator(f"identity provider delete {name}")
        operator(f"mapping delete {name}")


def test_a_user_with_two_factors_signs_in_with_both(
    loaded: Loaded,
    cloud: Cloud,
    tmp_path: Path,
):
    operator, name = Cli(loaded, cloud, "cumulog", tmp_path), fresh("two")
    operator(f"user create {name} --password first-1")
    operator(f"role add --user {name} --user-domain default --project demo member")
    secret = secrets.token_bytes(20)
    blob = base64.b32encode(secret).decode()
    operator(f"credential create --type totp {name} {blob}")
    operator(f"user set {name} --enable-multi-factor-auth --multi-factor-auth-rule password,totp")
    told = {
        "username": name,
        "user_domain_name": "Default",
        "project_name": "demo",
        "project_domain_name": "Default",
        "password": "first-1",
    }
    code = TOTP(secret, 6, SHA1(), 30).generate(int(time.time())).decode()

    Somebody(loaded, cloud, tmp_path, auth_type="password", **told)("token issue", code=1)
    both = Somebody(
        loaded,
        cloud,
        tmp_path,
        auth_type="v3multifactor",
        auth_methods="v3password,v3totp",
        passcode=code,
        **told,
    )

    assert both.json("token issue")["id"]
