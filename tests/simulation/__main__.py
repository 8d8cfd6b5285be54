"""Simulate: many seeds, or one, with or without a planted bug.

A seed's run follows from the seed alone, so a failure is repeated by naming its seed.
"""

import argparse
import gc
import multiprocessing
import os
import sys
import time
import warnings
from collections import Counter

from tests.simulation.bugs import BUGS, planted
from tests.simulation.checker import violations
from tests.simulation.determinism import HASH_SEED, hash_seed_is_fixed
from tests.simulation.genesis import genesis
from tests.simulation.plan import plan
from tests.simulation.running import collect, simulated

COLLECT_EVERY = 20
CHUNK = 10
PROGRESS_S = 5.0
SHOWN_MAX = 6


def run_seed(seed, *, bug=None, say=None):
    """Return what does not hold for a seed, the digest of its run, and what it met."""
    with simulated(plan(seed), say=say, bug=planted(bug) if bug else None) as world:
        return violations(world), world.digest(), world.met


def run_chunk(work):
    """Return how many seeds ran, (seed, violations) of those that failed, what all of them met."""
    seeds, bug = work
    failed = []
    met = Counter()
    for seed in seeds:
        found, _, what = run_seed(seed, bug=bug)
        met += what
        if found:
            failed.append((seed, found))
    collect()
    return len(seeds), failed, met


def warm_up():
    # Coroutines of killed processes are never awaited, nor do they end as they should.
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda _: None
    genesis()
    gc.collect()
    gc.freeze()


def command(seed, bug):
    return f"script/simulate --seed {seed}" + (f" --bug {bug}" if bug else "") + " -v"


def tell(seed, found, bug):
    print(f"seed {seed} failed; repeat it with: {command(seed, bug)}", flush=True)
    for text in found[:SHOWN_MAX]:
        print(f"  {text[:600]}")
    if len(found) > SHOWN_MAX:
        print(f"  and {len(found) - SHOWN_MAX} more")


def run_many(arguments):
    """Run seeds until all are done, or one fails where that is what is waited for."""
    bug = arguments.bug
    seeds = arguments.only or range(arguments.first, arguments.first + arguments.seeds)
    chunks = [(seeds[n : n + CHUNK], bug) for n in range(0, len(seeds), CHUNK)]
    began, shown = time.monotonic(), time.monotonic()
    done, failed, met = 0, [], Counter()
    with multiprocessing.get_context("fork").Pool(arguments.jobs) as pool:
        for count, bad, what in pool.imap_unordered(run_chunk, chunks):
            done += count
            met += what
            for seed, found in sorted(bad):
                tell(seed, found, bug)
                failed.append(seed)
            if failed and (bug or arguments.stop):
                break
            if time.monotonic() - shown > PROGRESS_S:
                shown = time.monotonic()
                rate = done / (shown - began)
                print(
                    f"{done} of {len(seeds)} seeds, {rate:.1f}/s, {len(failed)} failed", flush=True
                )
    took_s = time.monotonic() - began
    print("met: " + ", ".join(f"{what} {times}" for what, times in sorted(met.items())))
    print(f"{done} seeds in {took_s:.1f} s, {done / took_s:.1f}/s, {len(failed)} failed")
    return failed


def run_one(arguments):
    """Run one seed twice: what it does, and that it does so again."""
    say = print if arguments.verbose else None
    found, digest, _ = run_seed(arguments.seed, bug=arguments.bug, say=say)
    _, again, _ = run_seed(arguments.seed, bug=arguments.bug)
    print(plan(arguments.seed))
    print(f"seed {arguments.seed}: digest {digest}, {len(found)} violations")
    for text in found:
        print(f"  {text}")
    if digest != again:
        print(f"  the same seed took another course the second time: {again}")
        found.append("not repeatable")
    return [arguments.seed] if found else []


def main():
    parser = argparse.ArgumentParser(prog="script/simulate", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--only", type=int, nargs="*", help="these seeds and no others")
    parser.add_argument("--seed", type=int, help="one seed, run twice and compared")
    parser.add_argument("--bug", choices=sorted(BUGS), help="plant a bug; success is to find it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once")
    parser.add_argument("--stop", action="store_true", help="end at the first failure")
    parser.add_argument("-v", "--verbose", action="store_true", help="with --seed: what happens")
    arguments = parser.parse_args()
    if not hash_seed_is_fixed():
        # The order of sets follows from it.
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    warm_up()
    failed = run_many(arguments) if arguments.seed is None else run_one(arguments)
    if arguments.bug:
        print("found" if failed else "NOT FOUND")
        return 0 if failed else 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
