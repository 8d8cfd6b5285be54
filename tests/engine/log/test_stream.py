"""The log's stream is made once and must stay as it was made."""

import pytest

from engine.log.stream import LogConfigDiffers, StreamApiError, call, ensure_log, log_config


async def test_making_it_twice_is_making_it_once(nats):
    bus = await nats.connect()

    await ensure_log(bus)
    await ensure_log(bus)

    info = await call(bus, f"STREAM.INFO.{bus.subjects.log_stream}")
    assert info["config"]["deny_delete"] is True
    assert info["config"]["deny_purge"] is True
    assert info["config"]["storage"] == "file"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_msgs", 5),
        ("max_bytes", 1_000_000),
        ("max_age", 3_600_000_000_000),
        ("discard", "old"),
        ("max_msgs_per_subject", 1),
        ("allow_direct", False),
        ("deny_delete", False),
        ("deny_purge", False),
        ("allow_rollup_hdrs", True),
        ("storage", "memory"),
        ("subjects", ["other.log"]),
        ("sealed", True),
        ("allow_msg_ttl", True),
        ("allow_atomic", False),
        ("duplicate_window", 120_000_000_000),
        ("republish", {"src": ">", "dest": "elsewhere.>"}),
        ("compression", "s2"),
    ],
)
async def test_any_difference_stops_the_start_and_is_named(nats, field, value):
    bus = await nats.connect()
    config = log_config(bus.subjects.log_stream, bus.subjects.log, 1) | {field: value}
    if field == "subjects":
        config["subjects"] = [f"{nats.cell}.other"]
    if field in ("allow_rollup_hdrs", "republish"):
        config |= {"deny_purge": False, "subjects": [bus.subjects.log]}
    if field == "sealed":
        config.pop("sealed")
    await call(bus, f"STREAM.CREATE.{bus.subjects.log_stream}", config)
    if field == "sealed":
        await call(bus, f"STREAM.UPDATE.{bus.subjects.log_stream}", config | {"sealed": True})

    with pytest.raises(LogConfigDiffers) as raised:
        await ensure_log(bus)

    assert field in raised.value.fields
    assert field in str(raised.value)


@pytest.mark.parametrize("what", ["STREAM.PURGE", "STREAM.MSG.DELETE"])
async def test_not_even_the_administrator_can_take_messages_out(nats, what):
    bus = await nats.connect()
    await (await nats.log()).append(b"x", expected_last=0)

    with pytest.raises(StreamApiError):
        await call(bus, f"{what}.{bus.subjects.log_stream}", {"seq": 1})
