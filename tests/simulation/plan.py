"""What a seed decides before anything happens: how big the cell is, and what shall befall it.

Each seed takes part of the possible misfortunes only: with all of them at once, nothing gets far
enough for the rare ones to matter.
"""

import random
from dataclasses import dataclass, field

from tests.simulation.network import Weather

MISFORTUNES = (
    "ambush", "kill_engine", "pause_engine", "stop_engine", "kill_agent", "pause_agent",
    "stop_agent", "kill_projector", "pause_projector", "cut", "stall", "restart_broker",
    "end_domain", "stray", "power_cut", "step_clock",
)  # fmt: skip


@dataclass(kw_only=True)
class Plan:
    """See the module. Times in seconds."""

    seed: int
    hosts: int = 2
    clients: int = 2
    asks: int = 5
    think_s: float = 1.0
    trouble_s: float = 30.0
    every_s: float = 3.0  # between misfortunes, on average
    misfortunes: tuple = ()
    weather: Weather = field(default_factory=Weather)
    slow_driver: float = 0.0
    failing_driver: float = 0.0
    liars: int = 0
    wrong_times: float = 0.0  # the share of honest reports with an impossible time
    skew_s: float = 0.0  # how far clocks are off, at most
    lose_host: bool = False
    snapshot_ordinals: int = 1_000_000
    rolls: int = 0  # how often the log goes on in another stream


def plan(seed):
    chance = random.Random(f"plan-{seed}")

    def sometimes(share, *values):
        return chance.choice(values) if chance.random() < share else 0.0

    hosts = chance.choice((1, 2, 2, 3))
    steps = chance.random() < 0.25
    kinds = [kind for kind in MISFORTUNES if chance.random() < 0.4]
    if not steps and "step_clock" in kinds:
        kinds.remove("step_clock")
    return Plan(
        seed=seed,
        hosts=hosts,
        clients=chance.randint(1, 4),
        asks=chance.randint(3, 8),
        think_s=chance.choice((0.05, 0.5, 2.0)),
        trouble_s=chance.choice((10.0, 20.0, 30.0)),
        every_s=chance.choice((0.7, 2.0, 4.0)),
        misfortunes=tuple(kinds),
        weather=Weather(
            spread_s=chance.choice((0.0005, 0.002, 0.02)),
            slow=sometimes(0.5, 0.01, 0.1),
            slow_s=chance.choice((0.5, 3.0, 8.0)),
            lost=sometimes(0.4, 0.01, 0.08),
            twice=sometimes(0.5, 0.02, 0.1),
            reordered=sometimes(0.5, 0.05, 0.3),
        ),
        slow_driver=sometimes(0.3, 0.02, 0.1),
        failing_driver=sometimes(0.35, 0.03, 0.15),
        liars=chance.choice((0, 0, 1, 2)),
        wrong_times=sometimes(0.15, 0.3),
        skew_s=chance.choice((0.5, 20.0)) if steps or chance.random() < 0.2 else 0.0,
        lose_host=hosts > 1 and chance.random() < 0.15,
        snapshot_ordinals=chance.choice((25, 60, 1_000_000)),
        rolls=chance.choice((0, 0, 0, 1, 4)),
    )


CALM = Weather()
