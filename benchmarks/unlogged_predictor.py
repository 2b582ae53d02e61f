"""The predictor without its log over HTTP: records are encoded as ever, and "acknowledged" without being sent."""

import asyncio
import sys

from driftline.runtime.acknowledged_producer import AcknowledgedProducer, Acknowledgement, Headers
from services.predictor import assembly
from services.predictor.__main__ import main


class _NoLog(AcknowledgedProducer):
    """Acknowledges at once what it is given."""

    def send(
        self, topic: str, key: bytes | str | None, value: bytes | None, headers: Headers = ()
    ) -> asyncio.Future[Acknowledgement]:
        del key, value, headers
        acknowledged: asyncio.Future[Acknowledgement] = asyncio.get_running_loop().create_future()
        acknowledged.set_result(Acknowledgement(topic, 0, 0))
        return acknowledged


if __name__ == "__main__":
    assembly.AcknowledgedProducer = _NoLog  # type: ignore[attr-defined]
    sys.exit(main())
