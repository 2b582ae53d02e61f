"""What goes wrong on purpose really is wrong, and as often as it is said."""

from typing import Any

import numpy as np
import pytest

from driftline.contracts.batch_codec import BatchDecoder
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.registry import UnknownSchemaError
from driftline.contracts.wire import frame
from driftline.playback.faults import Damage, FaultRates, damaged, draw_faults

SCHEMA = {
    "type": "record",
    "name": "Event",
    "fields": [{"name": "event_id", "type": "string"}, {"name": "value", "type": ["null", "double"]}],
}


def resolve(schema_id: int) -> dict[str, Any]:
    if schema_id != 7:
        raise UnknownSchemaError(f"unknown {schema_id}")
    return SCHEMA


@pytest.mark.parametrize("damage", list(Damage))
def test_damaged_values_cannot_be_decoded_and_their_neighbours_can(damage: Damage) -> None:
    good = frame(7, RecordCodec(SCHEMA).encode({"event_id": "a", "value": 1.5}))
    decoded = BatchDecoder(SCHEMA, resolve).decode([good, damaged(good, damage), good])
    assert [row.index for row in decoded.bad] == [1]
    assert len(decoded.table) == 2


def test_faults_are_as_frequent_as_their_rates_say() -> None:
    faults = draw_faults(100_000, FaultRates(), np.random.default_rng(1))
    assert np.mean(faults.delay_us > 0) == pytest.approx(0.01, rel=0.15)
    assert np.mean(faults.repeat_us >= 0) == pytest.approx(0.01, rel=0.15)
    assert np.mean(faults.damage >= 0) == pytest.approx(0.003, rel=0.3)
    late = faults.delay_us[faults.delay_us > 0]
    assert late.min() == 5 * 60_000_000
    assert late.max() == 45 * 60_000_000
    assert set(faults.damage.tolist()) == {-1, *Damage}
