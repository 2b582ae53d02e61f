"""The order in which a view's features are computed, which is not the order in which they are declared."""

import numpy as np
from hypothesis import given

from driftline.features import Aggregate, FeatureView
from driftline.features.formulas import Formulas
from driftline.features.layout import ViewLayout
from tests.unit.features.oracle import EVERYTHING, views

_DIVIDED = {
    *(Aggregate.MEAN, Aggregate.RATE, Aggregate.SHARE, Aggregate.DECAYED_MEAN),
    Aggregate.STD,
}


@given(views)
def test_every_total_is_taken_for_its_feature_and_counts_that_divide_come_last(view: FeatureView) -> None:
    layout = ViewLayout.of(view)
    formulas = Formulas.of(layout)
    recipes = {int(out): (recipe, place) for recipe in layout.recipes for place, out in enumerate(recipe.out)}
    divided = 0
    for place, (recipe, among) in recipes.items():
        made = formulas.places[place]
        steps = [step for step in formulas.steps if step.out.start <= made < step.out.stop]
        if not steps:
            assert any(out.start <= made < out.stop for _, out in formulas.lasts)
            continue
        (step,) = steps
        offset = made - step.out.start
        taken = [formulas.taken[source.start + offset] for source in step.sources]
        assert taken == [source[among] for source in recipe.sources]
        if recipe.aggregate in _DIVIDED:
            divided += 1
            assert step.sources[-1].start + offset >= formulas.divisors.start
    assert len(formulas.taken) - formulas.divisors.start == divided


def test_reading_leaves_the_totals_as_they_are() -> None:
    layout = ViewLayout.of(EVERYTHING)
    width = sum(len(ring.windows_us) * ring.columns for ring in layout.rings)
    totals = np.zeros((3, width))
    nothing = np.full((3, len(layout.lasts)), 0.0)
    Formulas.of(layout).values(
        totals=totals,
        last_value=nothing,
        last_time=nothing.astype(np.int64),
        as_of_us=np.zeros(3, np.int64),
        age_us=np.zeros(3, np.int64),
    )
    assert not totals.any()
