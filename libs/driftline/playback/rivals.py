"""How good the predictions were, against two simple rivals, on the same rows."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from driftline.models.bundle import Quality
from driftline.models.quality import moving_average, quality
from driftline.playback.errors import PlaybackError
from driftline.project.history import LABEL, LABEL_KNOWN_AT


def compare_with_rivals(
    predictions: pa.Table, requests: pa.Table, *, base_rate: float
) -> Mapping[str, Quality]:
    """Judge the model, the constant and the 24-hour moving average on the answered requests that have a label.

    Parameters
    ----------
    requests
        All requests with their labels; those from before the play feed the moving average.
    base_rate
        The share of true labels in training: the constant, and the moving average's start.
    """
    labelled = requests.filter(pc.is_valid(requests[LABEL]))
    known_at = labelled.filter(pc.is_valid(labelled[LABEL_KNOWN_AT]))
    answered = predictions.filter(pc.is_valid(predictions["score"])).select(["request_id", "score"])
    rows = labelled.join(answered, "request_id", join_type="inner")
    if not len(rows):
        raise PlaybackError("no answered request has a label, so there is no quality to measure")
    labels = rows[LABEL].combine_chunks().to_numpy(zero_copy_only=False).astype(np.bool_)
    averages = moving_average(
        known_at[LABEL_KNOWN_AT].cast(pa.int64()).to_numpy(),
        known_at[LABEL].combine_chunks().to_numpy(zero_copy_only=False).astype(np.bool_),
        rows["event_time"].cast(pa.int64()).to_numpy(),
        fallback=base_rate,
    )
    return {
        "model": quality(labels, rows["score"].to_numpy()),
        "constant": quality(labels, np.full(len(labels), base_rate)),
        # As in training: no forecast is ever certain.
        "moving_average": quality(labels, np.clip(averages, 1e-3, 1 - 1e-3)),
    }
