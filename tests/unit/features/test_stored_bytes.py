"""What stores hold of the flights' views: a change here strands every row that was ever written of them."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from driftline.features import FeatureView
from driftline.features.layout import ViewLayout
from driftline.features.read import read_state
from driftline.features.update import apply_events
from driftline.project import load_project
from tests.unit.features.oracle import SECOND_US, START_US

FLIGHTS = load_project(Path(__file__).parents[3] / "examples" / "flights").views
FINGERPRINTS = {
    "origin_departures": 2885018164,
    "carrier_departures": 4233761911,
    "origin_arrivals": 1756900471,
    "carrier_arrivals": 1583024578,
    "dest_arrivals": 849606931,
    "origin_cancellations": 1680467427,
    "origin_weather": 75496440,
}
#: Of the rows that 3,000 events make, and of the values that are read from them.
BYTES = {
    "origin_departures": "14129d617353f349",
    "carrier_departures": "b2b50ff4d4f7fb3d",
    "origin_arrivals": "c47f95581b901309",
    "carrier_arrivals": "61d398842ac1c25e",
    "dest_arrivals": "5ab92b5d88e67b17",
    "origin_cancellations": "5e2a7113554853ce",
    "origin_weather": "b2b28a2e87041719",
}


@pytest.mark.parametrize("view", FLIGHTS.values(), ids=lambda view: view.name)
def test_the_flights_views_have_the_fingerprints_that_they_always_had(view: FeatureView) -> None:
    assert ViewLayout.of(view).fingerprint == FINGERPRINTS[view.name]


@pytest.mark.parametrize("view", FLIGHTS.values(), ids=lambda view: view.name)
def test_the_flights_views_have_the_bytes_that_they_always_had(view: FeatureView) -> None:
    layout = ViewLayout.of(view)
    number = np.arange(3_000)
    state = layout.empty(7)
    times = START_US + number * 211 % 3_001 * 90 * SECOND_US
    inputs = {
        name: np.where(number % 11 == place, np.nan, (number * 37 % 1_001 - 300) / 8)
        for place, name in enumerate(layout.inputs)
    }
    apply_events(layout, state, number % 6, times, inputs)
    read = read_state(layout, state, np.full(7, times.max()))
    digest = hashlib.sha256(state.tobytes() + read.values.tobytes() + read.age_us.tobytes())
    assert digest.hexdigest()[:16] == BYTES[view.name]
