from pathlib import Path

import numpy as np
import pytest

from driftline.models.model_reference import ModelReference, build_model_reference
from driftline.project import DecisionRule, InputField, InputType, ModelDeclaration, Payoff

SITES = ("north", "south", "west")
COLUMNS = tuple(f"x{number}" for number in range(6))


@pytest.fixture(scope="session")
def model() -> ModelDeclaration:
    return ModelDeclaration(
        name="m",
        description="",
        owner="",
        entities=(),
        views=(),
        inputs=(
            *(InputField(name=name, type=InputType.DOUBLE) for name in COLUMNS),
            InputField(name="site", type=InputType.STRING),
        ),
        decision=DecisionRule(threshold=0.5, above="yes", below="no"),
        module=Path("model.py"),
        value={"yes": Payoff(positive=2, negative=-1), "no": Payoff(positive=-2, negative=0)},
        segments=("site",),
    )


class World:
    """Rows as the model's world makes them."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def rows(self, count: int, *, shift: float = 0.0, where: str = "north", column: int = 2) -> dict:  # type: ignore[type-arg]
        numeric = self.random.normal(0, 1, (count, len(COLUMNS)))
        site = self.random.choice(SITES, count, p=[0.25, 0.35, 0.4])
        numeric[site == where, column] += shift
        score = 1 / (1 + np.exp(-(numeric[:, 0] + 0.5 * numeric[:, 1] - 1)))
        return {
            "numeric": numeric,
            "site": site.tolist(),
            "score": score,
            "label": self.random.random(count) < score,
        }


@pytest.fixture(scope="session")
def reference(model: ModelDeclaration) -> ModelReference:
    rows = World(0).rows(12_000)
    return build_model_reference(model, rows["numeric"], {"site": rows["site"]}, rows["score"], rows["label"])
