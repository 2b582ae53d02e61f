"""The Confluent wire format: magic byte 0, the schema's id in four bytes, the Avro body."""

from driftline.runtime.errors import BadMessageError

MAGIC = b"\x00"
HEADER_BYTES = 5
#: Larger values are dead letters: no event or prediction is near this.
MAX_MESSAGE_BYTES = 1_000_000


def frame(schema_id: int, body: bytes) -> bytes:
    """Put the header before an Avro body.

    >>> frame(7, b"x")
    b'\\x00\\x00\\x00\\x00\\x07x'
    """
    return MAGIC + schema_id.to_bytes(4, "big") + body


def split(value: bytes | None) -> tuple[int, bytes]:
    """Return the schema id and the body of a framed value.

    Raises
    ------
    BadMessageError
        For null, oversize or short values and a wrong magic byte.
    """
    if value is None:
        raise BadMessageError("the value is null")
    if len(value) > MAX_MESSAGE_BYTES:
        raise BadMessageError(f"the value has {len(value):,} bytes; the limit is {MAX_MESSAGE_BYTES:,}")
    if len(value) < HEADER_BYTES:
        raise BadMessageError(f"the value has {len(value)} bytes, less than the five of the header")
    if value[:1] != MAGIC:
        raise BadMessageError(f"the value starts with byte {value[0]}, not with the magic byte 0")
    return int.from_bytes(value[1:HEADER_BYTES], "big"), value[HEADER_BYTES:]
