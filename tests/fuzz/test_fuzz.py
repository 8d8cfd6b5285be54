"""The short run of the fuzz: every route, as a member and as an administrator, right and wrong."""

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.api.conftest import Cloud, started
from tests.fuzz.campaign import Campaign

pytestmark = pytest.mark.slow

EXAMPLES = 3
SEED = 20261129


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A cloud of its own, since the fuzz breaks what it can."""
    with started(tmp_path_factory.mktemp("fuzz") / "state") as cloud:
        yield cloud


@pytest.fixture(scope="module")
def campaign(cloud: Cloud) -> Campaign:
    campaign = Campaign(cloud=cloud, examples=EXAMPLES, seed=SEED)
    campaign.run(campaign.describe())
    return campaign


def test_no_answer_breaks_a_promise(campaign: Campaign):
    assert not campaign.broken, "\n".join(
        f"{b.persona} {b.operation}: {b.reason}\n    {b.curl}" for b in campaign.broken
    )


def test_the_fuzz_reaches_more_than_refusals(campaign: Campaign):
    """Else it would prove little: both personas succeed, are refused and miss things."""
    for persona in ("member", "admin"):
        statuses: Counter[int] = Counter()
        for (who, _, status), times in campaign.sent.items():
            if who == persona:
                statuses[status // 100 * 100 if status < 400 else status] += times
        assert min(statuses[200], statuses[400], statuses[404]) > 50, statuses
    asked = {operation for _, operation, _ in campaign.sent}
    assert len(asked) == len({(persona, op) for persona, op, _ in campaign.sent}) / 2


def test_the_fuzz_sees_what_is_not_as_described(cloud: Cloud):
    """Told something else than the truth, it complains of each difference."""
    campaign = Campaign(cloud=cloud, examples=2, seed=SEED)
    description = campaign.describe()
    paths = description["paths"]
    description["paths"] = {
        path: paths[path]
        for path in ("/compute/v2.1/servers", "/v1/usage", "/network/v2.0/security-groups")
    }
    del paths["/compute/v2.1/servers"]["post"]
    del paths["/compute/v2.1/servers"]["get"]["responses"]["200"]
    usage = paths["/v1/usage"]["get"]["responses"]["200"]["content"]
    usage["text/plain"] = usage.pop("application/json")
    del paths["/network/v2.0/security-groups"]["post"]["responses"]["501"]
    shape = paths["/network/v2.0/security-groups"]["get"]["responses"]["200"]["content"]
    shape["application/json"]["schema"] = {"type": "array"}

    campaign.run(description)

    found = {(b.operation, b.reason.partition(":")[0]) for b in campaign.broken}
    assert found == {
        ("GET /compute/v2.1/servers", "200 is not declared"),
        ("GET /compute/v2.1/servers", "JsonSchemaError"),  # the default is an error
        ("GET /v1/usage", "UndefinedContentType"),
        ("POST /network/v2.0/security-groups", "501"),
        ("GET /network/v2.0/security-groups", "JsonSchemaError"),
    }
