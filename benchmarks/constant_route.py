"""The HTTP peer that does nothing: a FastAPI route that takes the predictor's body and returns a constant."""

from typing import Any

from fastapi import FastAPI

from benchmarks.route_server import serve

app = FastAPI()


@app.post("/v1/models/failure/predictions")
async def predict(body: dict[str, Any]) -> dict[str, float]:
    """Take the body and return a constant."""
    del body
    return {"score": 0.5}


if __name__ == "__main__":
    serve(app, "constant_route")
