"""Records of plain values and byte strings as compact, versioned bytes, and strictly back.

Layout: four bytes that name the kind, one byte of version, the size of what follows uncompressed (u32), then
zstd of: the size of the JSON (u32), the JSON, the byte strings one after another. Little-endian.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from driftline.runtime.errors import BadMessageError

_HEADER = struct.Struct("<4sBI")
_SIZE = struct.Struct("<I")
#: No record may be larger than this before compression.
LARGEST = 64 * 1024 * 1024
_BLOBS = "byte strings"


def pack(kind: bytes, version: int, record: Mapping[str, Any]) -> bytes:
    """Return the bytes of a record whose values are JSON values or byte strings."""
    blobs = {name: value for name, value in record.items() if isinstance(value, bytes)}
    plain = {name: value for name, value in record.items() if name not in blobs}
    plain[_BLOBS] = [[name, len(blob)] for name, blob in blobs.items()]
    text = json.dumps(plain, separators=(",", ":")).encode()
    body = b"".join([_SIZE.pack(len(text)), text, *blobs.values()])
    packed = pa.Codec("zstd", compression_level=1).compress(body, asbytes=True)
    return _HEADER.pack(kind, version, len(body)) + bytes(packed)


def unpack(kind: bytes, version: int, data: bytes) -> dict[str, Any]:
    """Return the record of some bytes.

    Raises
    ------
    BadMessageError
        Where the bytes are of another kind or version, damaged, too short, too long or too large.
    """
    if len(data) < _HEADER.size:
        raise BadMessageError(f"{len(data)} bytes are too few for a {kind.decode()} record")
    found, found_version, size = _HEADER.unpack_from(data)
    if found != kind:
        raise BadMessageError(f"not a {kind.decode()} record: it begins with {found!r}")
    if found_version != version:
        raise BadMessageError(
            f"{kind.decode()} record of version {found_version}; this release reads version {version}"
        )
    if size > LARGEST:
        raise BadMessageError(f"{kind.decode()} record of {size:,} bytes; at most {LARGEST:,} are read")
    try:
        body = pa.Codec("zstd").decompress(data[_HEADER.size :], decompressed_size=size, asbytes=True)
        return _record(bytes(body))
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise BadMessageError(f"damaged {kind.decode()} record: {error}") from error


def _record(body: bytes) -> dict[str, Any]:
    (length,) = _SIZE.unpack_from(body)
    position = _SIZE.size + length
    record: dict[str, Any] = json.loads(body[_SIZE.size : position])
    for name, size in record.pop(_BLOBS):
        record[name] = body[position : position + size]
        position += size
    if position != len(body):
        raise ValueError(f"{len(body)} bytes where {position} were announced")
    return record
