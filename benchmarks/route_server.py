"""Serve a FastAPI peer as our services are served: one uvicorn worker with uvloop and httptools."""

import json
import os
import socket
from pathlib import Path

import uvicorn
from fastapi import FastAPI


def serve(app: FastAPI, instance: str) -> None:
    """Serve on a free port, written where the services write theirs, until told to stop."""

    @app.get("/readyz")
    async def readyz() -> dict[str, bool]:
        return {"ready": True}

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    run = Path(os.environ["BENCH_STATE"]) / "run"
    run.mkdir(parents=True, exist_ok=True)
    (run / f"{instance}.json").write_text(json.dumps({"port": listening.getsockname()[1]}))
    config = uvicorn.Config(app, loop="uvloop", http="httptools", log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listening])
