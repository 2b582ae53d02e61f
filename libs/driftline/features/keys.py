"""Names of things in the online store, and the partition that an entity's events are in.

Every key of a (topic, partition) carries the same hash tag, so one atomic step can touch them all,
in Redis Cluster as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_SEED, _MULTIPLIER, _MASK = 0x9747B28C, 0x5BD1E995, 0xFFFFFFFF


def hash_tag(prefix: str, event_type: str, partition: int) -> str:
    """Return the hash tag of a partition; ``prefix`` is the topics' prefix, ``[environment.]project``.

    >>> hash_tag("flights", "arrivals", 3)
    '{flights.arrivals.3}'
    """
    return f"{{{prefix}.{event_type}.{partition}}}"


def owner_key(prefix: str, event_type: str, partition: int) -> str:
    """Return the key that says who writes a partition, and its next offset."""
    return f"dl:{hash_tag(prefix, event_type, partition)}:owner"


def blob_key(prefix: str, event_type: str, partition: int, view_ref: str, entity: str) -> str:
    """Return the key of an entity's blob.

    >>> blob_key("flights", "arrivals", 3, "origin_delays@1", "JFK")
    'dl:{flights.arrivals.3}:origin_delays@1:JFK'
    """
    return f"dl:{hash_tag(prefix, event_type, partition)}:{view_ref}:{entity}"


def seen_key(prefix: str, event_type: str, partition: int, hour: int) -> str:
    """Return the key of the event ids that were applied in an hour (hours since the epoch)."""
    return f"dl:{hash_tag(prefix, event_type, partition)}:seen:{hour}"


def views_key(prefix: str, event_type: str, partition: int) -> str:
    """Return the key that says of which views a partition's offset holds true (``features.filling``)."""
    return f"dl:{hash_tag(prefix, event_type, partition)}:views"


def fill_key(prefix: str, event_type: str, partition: int) -> str:
    """Return the key that says how far a partition's backfill has come; there is none where nothing is filled."""
    return f"dl:{hash_tag(prefix, event_type, partition)}:fill"


def builds_key(prefix: str, event_type: str, partition: int) -> str:
    """Return the key of a partition's last builds: when it was built or filled, how long that took."""
    return f"dl:{hash_tag(prefix, event_type, partition)}:builds"


def format_owner(epoch: int, next_offset: int) -> bytes:
    """Return the owner key's value.

    >>> format_owner(2, 1500)
    b'2|1500'
    """
    return b"%d|%d" % (epoch, next_offset)


def parse_owner(value: bytes) -> tuple[int, int]:
    """Return epoch and next offset from the owner key's value.

    >>> parse_owner(b"2|1500")
    (2, 1500)
    """
    epoch, _, offset = value.partition(b"|")
    return int(epoch), int(offset)


def murmur2(data: bytes) -> int:
    """Hash as Kafka's Java client does (and librdkafka's ``murmur2_random``), as an unsigned 32-bit number.

    >>> murmur2(b"21") == -973932308 % 2**32
    True
    """
    length = len(data)
    hashed = _SEED ^ length
    whole = length & ~3
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * _MULTIPLIER & _MASK
        word = (word ^ (word >> 24)) * _MULTIPLIER & _MASK
        hashed = (hashed * _MULTIPLIER & _MASK) ^ word
    if whole < length:
        hashed = (hashed ^ int.from_bytes(data[whole:], "little")) * _MULTIPLIER & _MASK
    hashed = (hashed ^ (hashed >> 13)) * _MULTIPLIER & _MASK
    return hashed ^ (hashed >> 15)


@lru_cache(maxsize=1 << 18)
def partition_of(key: str, partitions: int) -> int:
    """Return the partition that our producers (``partitioner=murmur2_random``) send a key to."""
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions


def partitions_of(keys: Sequence[str] | pa.Array, partitions: int) -> NDArray[np.int32]:
    """Return each key's partition, for a whole batch at once. Keys are not null.

    >>> partitions_of(["JFK", "EWR", "LGA"], 6).tolist() == [partition_of(k, 6) for k in ("JFK", "EWR", "LGA")]
    True
    """
    array = keys if isinstance(keys, pa.Array) else pa.array(keys, pa.string())
    array = array.cast(pa.large_binary())
    result = np.empty(len(array), np.int32)
    if not len(array):
        return result
    _, offset_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(data_buffer or b"", np.uint8)
    lengths = np.diff(offsets)
    for length in np.unique(lengths):
        chosen = np.flatnonzero(lengths == length)
        # [keys, bytes], padded with zeros to whole words.
        padded = np.zeros((len(chosen), -(-int(length) // 4) * 4), np.uint8)
        padded[:, :length] = data[offsets[chosen][:, None] + np.arange(length)]
        hashed = _murmur2_words(padded.view("<u4") if length else padded, int(length))
        result[chosen] = (hashed & np.uint32(0x7FFFFFFF)) % np.uint32(partitions)
    return result


def _murmur2_words(words: NDArray[np.uint32] | NDArray[np.uint8], length: int) -> NDArray[np.uint32]:
    """Run murmur2 down the columns of ``[keys, words]``; arrays of uint32 wrap as the hash wants."""
    multiplier = np.uint32(_MULTIPLIER)
    hashed = np.full(len(words), _SEED ^ length, np.uint32)
    for column in range(length // 4):
        word = words[:, column] * multiplier
        word = (word ^ (word >> np.uint32(24))) * multiplier
        hashed = (hashed * multiplier) ^ word
    if length % 4:
        hashed = (hashed ^ words[:, -1]) * multiplier
    hashed = (hashed ^ (hashed >> np.uint32(13))) * multiplier
    return hashed ^ (hashed >> np.uint32(15))
