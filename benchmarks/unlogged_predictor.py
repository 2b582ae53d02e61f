"""The predictor without its log over HTTP: records are encoded as ever, and "acknowledged" without being sent."""

import asyncio
import sys

from driftline.runtime.acknowledged_producer import AcknowledgedProducer, Acknowledgement, Headers, Tell
from services.predictor import assembly
from services.predictor.__main__ import main


class _NoLog(AcknowledgedProducer):
    """Acknowledges at once what it is given."""

    def send_to(
        self,
        loop: asyncio.AbstractEventLoop,
        topic: str,
        key: bytes | str | None,
        value: bytes | None,
        tell: Tell,
        headers: Headers = (),
    ) -> None:
        del key, value, headers
        loop.call_soon_threadsafe(tell, Acknowledgement(topic, 0, 0))


if __name__ == "__main__":
    assembly.AcknowledgedProducer = _NoLog  # type: ignore[attr-defined]
    sys.exit(main())
