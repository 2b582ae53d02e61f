"""HTTP predictions beside MLServer, beside a route that does the same one by one, and beside ourselves without the log."""

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from benchmarks import closed_loop, row_by_row
from benchmarks.comparison import Comparison
from benchmarks.data_plane import Bench, fill_store
from benchmarks.http_client import request_bytes
from benchmarks.http_path import BODY, PREDICT, predictions, route
from benchmarks.peer_environment import peer_python
from driftline.embedded.ports import free_port
from driftline.models.conversion import TOLERANCE

MLSERVER_REQUESTS = 1_000
_INFER = "/v2/models/failure/infer"
_NOTES = {
    "MLServer": (
        "the same scikit-learn pipeline in MLServer as it comes (one worker process); the request brings the features, "
        "it reads none and logs nothing"
    ),
    "one request at a time": "a FastAPI route: pydantic, redis-py, our kernel, ONNX; no log, no metrics",
    "ourselves without the log": "records are encoded, but not sent; ours waits for the broker's acknowledgement",
}

#: Requests a second at so many connections.
Rate = Callable[[int], float]


def comparisons(bench: Bench) -> list[Comparison]:
    """Return the lines: requests a second."""
    answer = functools.cache(lambda: our_answer(bench))

    def checked(address: str) -> str:
        _same(address, _asked(address + PREDICT, BODY)["score"], answer()["score"])
        return address

    mlserver = functools.cache(lambda: mlserver_url(bench, answer()))
    sequential = functools.cache(lambda: checked(route(bench, "sequential_route")))
    unlogged = functools.cache(
        lambda: checked(bench.service("predictor", module="benchmarks.unlogged_predictor"))
    )

    def mlserver_rate(connections: int) -> float:
        request = request_bytes(mlserver(), json.dumps(_infer_body(answer())).encode())
        return closed_loop.load(mlserver(), request, connections, MLSERVER_REQUESTS).rate

    peers: dict[str, tuple[Rate, dict[int, float | None]]] = {
        "one request at a time": (
            lambda connections: predictions(sequential(), connections).rate,
            {1: None, 16: 4, 64: 4},
        ),
        "ourselves without the log": (
            lambda connections: predictions(unlogged(), connections).rate,
            {16: 0.85, 64: 0.85},
        ),
        "MLServer": (mlserver_rate, {1: None, 16: 15, 64: 15}),
    }
    return [
        Comparison(
            name=f"HTTP predictions, {connections} connections / {peer}",
            unit="requests/s",
            ours=lambda connections=connections: predictions(bench.predictor(), connections).rate,  # type: ignore[misc]
            theirs=lambda rate=rate, connections=connections: rate(connections),  # type: ignore[misc]
            aim=aim,
            note=_NOTES[peer],
        )
        for peer, (rate, aims) in peers.items()
        for connections, aim in aims.items()
    ]


def our_answer(bench: Bench) -> dict[str, Any]:
    """Return our answer; its score must be the pipeline's for the features that it served."""
    fill_store(bench)
    answer = _asked(bench.predictor() + PREDICT, BODY)
    _same("the pipeline", row_by_row.scorer(bench)(_columns(answer)), answer["score"])
    return answer


def mlserver_url(bench: Bench, answer: dict[str, Any]) -> str:
    """Start MLServer with the model's pipeline, and return where it takes requests; it must give our answer's score."""
    python = peer_python(bench.environments, "mlserver")
    folder = bench.folder / "mlserver"
    (folder / "failure").mkdir(parents=True)
    ports: list[int] = []
    while len(ports) < 3:
        ports.append(free_port(ports))
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        **dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True)),
        "environments_dir": str(folder / "environments"),
        "metrics_dir": str(folder / "metrics"),
    }
    model = {
        "name": "failure",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(bench.pipeline)},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "failure" / "model-settings.json").write_text(json.dumps(model))
    command = [str(python.parent / "mlserver"), "start", str(folder)]
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    url = bench.serve(command, one_thread, "mlserver", ports[0], "/v2/models/failure/ready") + _INFER
    _same("MLServer", _asked(url, _infer_body(answer))["outputs"][0]["data"][1], answer["score"])
    return url


def _asked(url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    answered: dict[str, Any] = httpx.post(url, json=body, timeout=30).raise_for_status().json()
    return answered


def _columns(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the model's columns: what was asked with, and the features of our answer."""
    served = answer["features"]["sensor_readings"]["values"]
    features = {f"sensor_readings__{name}": value for name, value in served.items()}
    return {**BODY["inputs"], **features, **BODY["entities"]}


def _infer_body(answer: dict[str, Any]) -> dict[str, Any]:
    inputs = [
        {"name": name, "shape": [1], "data": [value]}
        | (
            {"datatype": "BYTES", "parameters": {"content_type": "str"}}
            if isinstance(value, str)
            else {"datatype": "FP64"}
        )
        for name, value in _columns(answer).items()
    ]
    return {
        "parameters": {"content_type": "pd"},
        "inputs": inputs,
        "outputs": [{"name": "predict_proba"}],
    }


def _same(whose: str, score: float, expected: float) -> None:
    if not abs(score - expected) <= TOLERANCE:
        raise ValueError(f"the score of {whose} is {score}, ours {expected}")
