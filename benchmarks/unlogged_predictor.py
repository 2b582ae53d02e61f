"""The predictor without its log over HTTP: records are encoded as ever, and "acknowledged" without being sent."""

import sys
from collections.abc import Sequence

from driftline.runtime.acknowledged_producer import AcknowledgedProducer, Acknowledgement, Sending
from services.predictor import assembly
from services.predictor.__main__ import main


class _NoLog(AcknowledgedProducer):
    """Acknowledges at once what it is given."""

    def send_together(self, topic: str, messages: Sequence[Sending]) -> None:
        def tell() -> None:
            for one in messages:
                one.tell(Acknowledgement(topic, 0, 0))

        if messages:
            messages[0].loop.call_soon_threadsafe(tell)


if __name__ == "__main__":
    assembly.AcknowledgedProducer = _NoLog  # type: ignore[attr-defined]
    sys.exit(main())
