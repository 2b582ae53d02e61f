"""What a partition's views need, by what it holds and what is declared."""

import pytest

from driftline.features.filling import Fill, StoredViews
from driftline.runtime.errors import ConfigurationError
from services.feature_store.view_reconciling import completed, reconcile

A, B, C = {"a@1": 1}, {"b@1": 2}, {"c@1": 3}


def test_nothing_is_to_be_done_where_all_is_there() -> None:
    stored = StoredViews(complete=A | B)
    plan = reconcile(stored, None, A | B, 5)
    assert (plan.views, plan.fill, plan.anew) == (stored, None, False)


def test_a_new_view_is_filled_from_the_beginning() -> None:
    plan = reconcile(StoredViews(complete=A), None, A | B, 5)
    assert plan.fill == Fill(views=B, begun_us=5)
    assert plan.anew
    assert plan.views == StoredViews(complete=A)
    assert completed(plan.views, plan.fill) == StoredViews(complete=A | B)


def test_a_new_version_is_a_new_view_and_the_old_one_is_left() -> None:
    plan = reconcile(StoredViews(complete=A), None, {"a@2": 9}, 5)
    assert plan.views == StoredViews(complete={}, left=("a@1",))
    assert plan.fill is not None
    assert (plan.fill.views, plan.fill.clearing) == ({"a@2": 9}, ())


def test_a_fill_of_the_same_views_goes_on() -> None:
    fill = Fill(views=B, start=0, offset=77)
    plan = reconcile(StoredViews(complete=A), fill, A | B, 5)
    assert (plan.fill, plan.anew) == (fill, False)


def test_a_fill_of_other_views_begins_anew_and_clears_what_it_wrote() -> None:
    fill = Fill(views=B, start=0, offset=77)
    plan = reconcile(StoredViews(complete=A), fill, A | B | C, 5)
    assert plan.anew
    assert plan.fill == Fill(views=B | C, clearing=("b@1",), begun_us=5)
    assert plan.views.left == ("b@1",)
    assert completed(plan.views, plan.fill).left == ()


def test_a_fill_that_nobody_needs_is_dropped_and_its_blobs_are_known() -> None:
    plan = reconcile(StoredViews(complete=A), Fill(views=B, offset=9), A, 5)
    assert (plan.fill, plan.anew) == (None, True)
    assert plan.views == StoredViews(complete=A, left=("b@1",))


def test_a_view_that_comes_back_is_cleared_first() -> None:
    gone = reconcile(StoredViews(complete=A | B), None, A, 5)
    back = reconcile(gone.views, None, A | B, 6)
    assert back.fill == Fill(views=B, clearing=("b@1",), begun_us=6)


def test_a_view_that_comes_back_may_hold_other_rows() -> None:
    gone = reconcile(StoredViews(complete=A | B), None, A, 5)
    back = reconcile(gone.views, None, A | {"b@1": 99}, 6)
    assert back.fill == Fill(views={"b@1": 99}, clearing=("b@1",), begun_us=6)


def test_other_rows_under_the_same_version_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"feature view 'b'.*Raise its version \(now 1\)"):
        reconcile(StoredViews(complete=A | B), None, A | {"b@1": 99}, 5)
