"""Evidently's data drift report over two tables, once for each line on standard input.

Run by the Python of an environment with Evidently: evidently_peer.py REFERENCE.npy CURRENT.npy [METHOD]
Prints {"ready": true}, then for each run {"seconds": ..., "values": {column: [value, threshold]}}. The clock runs from
the report's start to its values; importing and making the data sets is outside.
"""

import json
import sys
import time

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset


def main() -> None:
    """Answer each line with a report."""
    reference, current = (_dataset(path) for path in sys.argv[1:3])
    method = sys.argv[3] if len(sys.argv) > 3 else None
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        preset = DataDriftPreset() if method is None else DataDriftPreset(num_method=method)
        metrics = Report([preset]).run(current, reference).dict()["metrics"]
        seconds = time.perf_counter() - begun
        values = {
            metric["config"]["column"]: [float(metric["value"]), metric["config"]["threshold"]]
            for metric in metrics
            if "column" in metric["config"]
        }
        print(json.dumps({"seconds": seconds, "values": values}), flush=True)


def _dataset(path: str) -> Dataset:
    table = np.load(path)
    columns = [f"x{place}" for place in range(table.shape[1])]
    return Dataset.from_pandas(
        pd.DataFrame(table, columns=columns), data_definition=DataDefinition(numerical_columns=columns)
    )


if __name__ == "__main__":
    main()
