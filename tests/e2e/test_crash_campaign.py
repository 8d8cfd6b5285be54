"""A short campaign on a real host: what is killed leaves nothing on it that nobody knows of."""

import json
import os
import subprocess

import pytest

from tests.crash import host
from tests.crash.campaign import Campaign
from tests.crash.chain import walk
from tests.crash.stream import load_log
from tests.crash.truth import fold

ROUNDS = 6


@pytest.mark.guest
@pytest.mark.timeout(1500)
def test_a_few_rounds_on_a_real_host_leave_no_orphan(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("a real host needs root")
    campaign = Campaign(tmp_path, "libvirt", seed=3)
    cloud = campaign.cloud
    try:
        campaign.run(ROUNDS)
        campaign.finish()
        report = campaign.check()

        assert report["well"], json.dumps(report, indent=1)
        assert report["compared"] == ["log", "answers", "lists", "host"]
        assert report["on_the_host"] > 0
        assert campaign.tally.between == 2

        # And a stray thing would have been seen.
        truth = fold(walk(load_log(tmp_path / "log.jsonl")).entries)
        prefix = host.prefix_of(cloud.state_dir)
        wanted = host.expected(truth, prefix, "host-1")
        stray = f"{prefix}-00000000ffff"
        subprocess.run(["ip", "netns", "add", stray], check=True, timeout=60)
        try:
            seen = host.compare_host(wanted, host.take(cloud.state_dir, prefix))
        finally:
            subprocess.run(["ip", "netns", "delete", stray], check=False, timeout=60)
        assert ("orphans", f"namespace {stray} on the host") in seen
    finally:
        campaign.close()
        cloud.destroy()
    assert not cloud.state_dir.exists()
