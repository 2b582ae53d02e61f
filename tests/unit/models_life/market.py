"""A small project with a past: what comes back to the shops follows the basket, and from 1 March 2024 on there is less of it.

Every day has the same rows however a span is cut. In May 2024 some baskets are -1.
"""

import json
from datetime import date
from pathlib import Path

from driftline.models.retraining import Cause, RetrainRequest, request

START, TURN, BAD = date(2024, 1, 1), date(2024, 3, 1), date(2024, 5, 1)

DECLARATION = """
name: NAME
owner: someone@example.org
history: history.py
events:
  sales: {schema: sales.avsc, key: shop, event_time: sold_at}
models:
  returns:
    description: Will it come back?
    entities: [shop]
    views: [shop_sales]
    inputs:
      basket: {type: double}
      colour: {type: string}
    decision: {threshold: 0.5, above: returned, below: kept}
    label: {horizon: 1d}
    promotion: {least_outcomes: 100}
    retrain: {cooldown: 14d}
  overfitted:
    module: overfitted.py
    entities: [shop]
    views: [shop_sales]
    inputs:
      basket: {type: double}
    decision: {threshold: 0.5, above: returned, below: kept}
    label: {horizon: 1d}
"""

SCHEMA = {
    "type": "record",
    "name": "Sale",
    "fields": [
        {"name": "event_id", "type": "string"},
        {"name": "sold_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "shop", "type": "string"},
        {"name": "price", "type": "double"},
    ],
}

FEATURES = """
from driftline.features import Entity, FeatureView, Source, count, mean

shop = Entity("shop")
sales = Source("sales", entity=shop, event_time="sold_at")
shop_sales = FeatureView("shop_sales", version=1, source=sales, features=[mean("price").over("6h"), count().over("6h")])
"""

MODEL = """
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder


def candidates(numeric, categorical):
    return {"one": boosting(categorical, 1), "forty": boosting(categorical, 40)}


def boosting(categorical, trees):
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    encode = ColumnTransformer([("codes", codes, list(categorical))], remainder="passthrough")
    classify = HistGradientBoostingClassifier(max_iter=trees, early_stopping=False, random_state=0)
    return Pipeline([("encode", encode), ("classify", classify)])
"""

# Learns every row by heart: surely wrong about the next ones.
OVERFITTED = """
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder


def candidates(numeric, categorical):
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    encode = ColumnTransformer([("codes", codes, list(categorical))], remainder="passthrough")
    classify = HistGradientBoostingClassifier(
        max_iter=200, learning_rate=1.0, min_samples_leaf=1, early_stopping=False, random_state=0
    )
    return {"by_heart": Pipeline([("encode", encode), ("classify", classify)])}
"""

HISTORY = """
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
from driftline.project.history import History

HOUR, DAY = 3_600_000_000, 86_400_000_000
START, TURN, BAD = (np.datetime64(day).astype(int) for day in ("2024-01-01", "2024-03-01", "2024-05-01"))
ROWS = 60


def history(start, end):
    first = max(int(np.datetime64(start).astype(int)), START)
    days = range(first, int(np.datetime64(end).astype(int)))
    sales, requests = zip(*(one_day(day) for day in days))
    requests = pa.concat_tables(requests)
    known = pa.concat_tables(sales)
    return History(events={"sales": known.sort_by("known_at")}, requests=requests)


def one_day(day):
    rng = np.random.default_rng(day)
    at = np.sort(rng.integers(0, 24 * HOUR, ROWS)) + day * DAY
    shops = rng.choice(["north", "south"], ROWS)
    sales = pa.table({
        "event_id": [f"{day}-{i}" for i in range(ROWS)], "sold_at": pa.array(at, pa.timestamp("us")),
        "shop": shops.tolist(), "price": rng.gamma(2, 5, ROWS), "known_at": pa.array(at + HOUR, pa.timestamp("us")),
    })
    asked = np.sort(rng.integers(0, 24 * HOUR, ROWS)) + day * DAY
    where = rng.choice(["north", "south"], ROWS)
    basket = rng.gamma(2, 1, ROWS)
    push = (basket - 2) * 1.5 + np.where(where == "north", 0.5, -0.5) - (0 if day < TURN else 2)
    label = rng.random(ROWS) < 1 / (1 + np.exp(-push))
    if day >= BAD:
        basket[:3] = -1.0
    requests = pa.table({
        "request_id": [f"00000000-0000-4000-8000-{day:06d}{i:06d}" for i in range(ROWS)],
        "event_time": pa.array(asked, pa.timestamp("us")), "shop": where.tolist(), "basket": basket,
        "colour": ["red" if i % 3 else None for i in range(ROWS)], "label": label,
        "label_known_at": pa.array(asked + 6 * HOUR, pa.timestamp("us")),
    })
    return sales, requests
"""


def write_market(folder: Path, name: str = "market") -> Path:
    """Write the project's files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "driftline.yaml").write_text(DECLARATION.replace("NAME", name))
    (folder / "sales.avsc").write_text(json.dumps(SCHEMA))
    files = {"features": FEATURES, "model": MODEL, "overfitted": OVERFITTED, "history": HISTORY}
    for file, text in files.items():
        (folder / f"{file}.py").write_text(text)
    return folder


def day_us(year: int, month: int, day: int) -> int:
    return (date(year, month, day) - date(1970, 1, 1)).days * 86_400_000_000


def ask(until_us: int, name: str = "s1", model: str = "returns") -> RetrainRequest:
    return request(Cause.DRIFT, name, model, "log loss rose", until_us, by="test", at_us=1)
