"""A small correct project, as text, so that a test knows the line of what it spoils."""

import json
from pathlib import Path

from driftline.checking.project_check import check_project

DECLARATION = """\
name: market
owner: someone@example.org
history: history.py
events:
  sales:
    schema: schemas/sales.avsc
    key: shop
    event_time: sold_at
  visits:
    schema: schemas/visits.avsc
    key: shop
    event_time: visited_at
models:
  returns:
    entities: [shop]
    views:
      - shop_sales
      - shop_visits
    inputs:
      basket: {type: double}
      ticket: {type: string, identifier: true}
    decision: {threshold: 0.5, above: returned, below: kept}
    label: {key: ticket, horizon: 1d}
    baseline: shop_sales__rate_returned_1d
    retrain:
      cooldown: 7d
"""

FEATURES = """\
from driftline.features import Entity, FeatureView, Source, derived, feature, field, count, mean, rate, \\
    decayed_mean, distinct_count, last, most_frequent, share
shop = Entity("shop")
sales = Source("sales", entity=shop, event_time="sold_at")

shop_sales = FeatureView(
    "shop_sales",
    version=1,
    source=sales,
    features=[
        mean("price").over("1h"),
        mean("price").over("1d"),
        rate("returned").over("1d"),
    ],
)

shop_visits = FeatureView(
    "shop_visits",
    version=1,
    source=Source("visits", entity=shop, event_time="visited_at"),
    features=[count().over("1h"), mean("minutes").over("1h")],
)
"""

MODEL = """\
BOUNDS = {"basket": (0, None)}
from sklearn.dummy import DummyClassifier

def candidates(numeric, categorical):
    return {"first": DummyClassifier()}
"""

HISTORY = """\
def history(start, end):
    raise NotImplementedError
"""

KIND = {"type": "enum", "name": "Kind", "symbols": ["S", "M", "L"]}
TIME = {"type": "long", "logicalType": "timestamp-micros"}


def schema(name: str, **types: object) -> str:
    """Return an Avro schema, one field a line, the first field in the third line."""
    fields = ",\n  ".join(
        json.dumps({"name": field, "type": kind} | ({"default": None} if isinstance(kind, list) else {}))
        for field, kind in {"event_id": "string", "shop": "string", **types}.items()
    )
    return f'{{"type": "record", "name": "{name}",\n "fields": [\n  {fields}\n]}}\n'


FILES = {
    "driftline.yaml": DECLARATION,
    "features.py": FEATURES,
    "model.py": MODEL,
    "history.py": HISTORY,
    "schemas/sales.avsc": schema(
        "Sale", sold_at=TIME, price=["null", "double"], returned="boolean", kind=KIND
    ),
    "schemas/visits.avsc": schema("Visit", visited_at=TIME, minutes=["null", "double"]),
}


def write(folder: Path) -> Path:
    """Write the correct project."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def spoil(folder: Path, file: str, old: str, new: str) -> None:
    """Replace a text in a file, everywhere; it must be there."""
    text = (folder / file).read_text()
    assert old in text, f"{file} has no {old!r}"
    (folder / file).write_text(text.replace(old, new))


def told(folder: Path) -> list[str]:
    """Return the mistakes of a project as ``file:line: text``, the file within the folder."""
    return [str(one).removeprefix(f"{folder}/") for one in check_project(folder).mistakes]
