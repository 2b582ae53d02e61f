"""The section ``store:`` of a model in ``driftline.yaml``: how long its callers wait for features, and what then.

```yaml
store:
  wait: 50ms             # for the features of a request over HTTP
  unavailable: defaults  # or refuse: 503
```
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from driftline.project.life_sections import Duration
from driftline.runtime.durations import parse_duration_us

#: One read of features answers, or fails, within so many microseconds: waiting longer brings nothing.
LONGEST_WAIT_US = 2_000_000
_SHORTEST_WAIT_US = 1_000


class Unavailable(StrEnum):
    """What becomes of a request whose features cannot be had in time."""

    REFUSE = "refuse"
    DEFAULTS = "defaults"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRule:
    """What a model does over HTTP where the online store is slow or gone.

    Attributes
    ----------
    wait_us
        How long a request waits for its features, in microseconds.
    unavailable
        Then it fails (503), or is scored as if its entities had no events, and says so.
    """

    wait_us: int = LONGEST_WAIT_US
    unavailable: Unavailable = Unavailable.REFUSE

    @property
    def degrades(self) -> bool:
        """Whether requests are scored without the store."""
        return self.unavailable is Unavailable.DEFAULTS


def _checked_wait(text: str) -> str:
    if not _SHORTEST_WAIT_US <= parse_duration_us(text) <= LONGEST_WAIT_US:
        raise ValueError(f"{text!r} is no time from 1ms to 2s; write one like 50ms")
    return text


class StoreSection(BaseModel):
    """``models.<name>.store``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    wait: Annotated[Duration, AfterValidator(_checked_wait)] = "2s"
    unavailable: Unavailable = Unavailable.REFUSE

    def rule(self) -> StoreRule:
        """Return the rule."""
        return StoreRule(wait_us=parse_duration_us(self.wait), unavailable=self.unavailable)
