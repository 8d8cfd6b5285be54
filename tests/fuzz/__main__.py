"""The long run: ``script/fuzz --examples 200 --seed 7``."""

import argparse
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

from tests.api.conftest import started
from tests.fuzz.campaign import Campaign


def main() -> int:
    """Run a cloud, ask it, and print what it broke."""
    parser = argparse.ArgumentParser(prog="script/fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=50, help="of each route, persona and mode")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="cumulog-fuzz-") as place,
        started(Path(place) / "state") as cloud,
    ):
        campaign = Campaign(cloud=cloud, examples=options.examples, seed=options.seed)
        told = partial(print, file=sys.stderr, flush=True)
        campaign.run(campaign.describe(), told)
    for broken in campaign.broken:
        print(f"{broken.persona} {broken.operation}\n    {broken.reason}\n    {broken.curl}")
    statuses: Counter[int] = Counter()
    for (_, _, status), times in campaign.sent.items():
        statuses[status] += times
    print({status: statuses[status] for status in sorted(statuses)})
    return 1 if campaign.broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
