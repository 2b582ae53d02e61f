"""Which records of the log are wanted: those of a span, of one request, of one model."""

from dataclasses import dataclass
from functools import reduce
from operator import and_

import pyarrow as pa
import pyarrow.compute as pc

from driftline.archive.columns import INSTANT
from driftline.contracts.prediction_fields import EVENT_TIME, MODEL, PREDICTED_AT, REQUEST_ID
from driftline.runtime.durations import DAY_US

#: Columns that a span may be of: when the answer was decided, or the instant that the request was about.
SPAN_COLUMNS = (PREDICTED_AT, EVENT_TIME)
#: Records come later into the log than they were made, and not quite in their order; not by so much.
_DISORDER_US = 600_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Records with ``start_us <= by < stop_us`` (microseconds since the epoch), of a request and of a model if said."""

    start_us: int | None = None
    stop_us: int | None = None
    by: str = PREDICTED_AT
    request_id: str | None = None
    model: str | None = None

    @property
    def expression(self) -> pc.Expression:
        """The rows that are wanted, for tables and datasets that have the columns."""
        parts = [pc.scalar(True)]
        if self.start_us is not None:
            parts.append(pc.field(self.by) >= pa.scalar(self.start_us, pa.int64()).cast(INSTANT))
        if self.stop_us is not None:
            parts.append(pc.field(self.by) < pa.scalar(self.stop_us, pa.int64()).cast(INSTANT))
        if self.model is not None:
            parts.append(pc.field(MODEL) == self.model)
        if self.request_id is not None:
            # As it may have been written; equality lets files be passed over by their statistics.
            lower, upper = self.request_id.lower(), self.request_id.upper()
            parts.append((pc.field(REQUEST_ID) == lower) | (pc.field(REQUEST_ID) == upper))
        return reduce(and_, parts)

    @property
    def logged_from_ms(self) -> int:
        """The least timestamp that a wanted record can have in the log, in milliseconds."""
        if self.start_us is None:
            return 0
        ahead = DAY_US if self.by == EVENT_TIME else 0  # as far as a request may be ahead of its instant
        return max(0, self.start_us - ahead - _DISORDER_US) // 1_000

    @property
    def logged_until_ms(self) -> int | None:
        """The largest timestamp that a wanted prediction can have in the log; None where there is no bound."""
        if self.stop_us is None or self.by != PREDICTED_AT:
            return None
        return (self.stop_us + _DISORDER_US) // 1_000
