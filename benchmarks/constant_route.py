"""The HTTP peer: FastAPI under uvicorn with uvloop and httptools, a route that returns a constant."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

app = FastAPI()


@app.get("/readyz")
async def readyz() -> dict[str, bool]:
    """Say that it is ready."""
    return {"ready": True}


@app.post("/v1/models/failure/predictions")
async def predict(body: dict[str, Any]) -> dict[str, float]:
    """Take the body and return a constant."""
    del body
    return {"score": 0.5}


def main() -> None:
    """Serve on a free port, written where the services write theirs."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    run = Path(os.environ["BENCH_STATE"]) / "run"
    run.mkdir(parents=True, exist_ok=True)
    (run / "constant-route.json").write_text(json.dumps({"port": listening.getsockname()[1]}))
    config = uvicorn.Config(app, loop="uvloop", http="httptools", log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
