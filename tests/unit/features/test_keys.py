import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.features.keys import (
    blob_key,
    format_owner,
    murmur2,
    owner_key,
    parse_owner,
    partition_of,
    partitions_of,
    seen_key,
)


@pytest.mark.parametrize(
    ("data", "hashed"),
    [  # org.apache.kafka.common.utils.UtilsTest.testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(data: bytes, hashed: int) -> None:
    assert murmur2(data) == hashed % 2**32


@given(st.lists(st.text(max_size=40)), st.integers(1, 1024))
def test_a_batch_of_keys_gets_the_partitions_of_each(keys: list[str], partitions: int) -> None:
    expected = [partition_of(key, partitions) for key in keys]
    assert partitions_of(keys, partitions).tolist() == expected
    padded = pa.array(["before", *keys, "after"])
    assert partitions_of(padded.slice(1, len(keys)), partitions).tolist() == expected
    assert (
        partitions_of(padded.slice(1, len(keys)).dictionary_encode().cast(pa.string()), partitions).dtype
        == np.int32
    )


def test_keys_of_a_partition_share_its_hash_tag() -> None:
    keys = {
        owner_key("test.flights", "arrivals", 2),
        blob_key("test.flights", "arrivals", 2, "delays@1", "JFK"),
        seen_key("test.flights", "arrivals", 2, 482_000),
    }
    assert keys == {
        "dl:{test.flights.arrivals.2}:owner",
        "dl:{test.flights.arrivals.2}:delays@1:JFK",
        "dl:{test.flights.arrivals.2}:seen:482000",
    }


@given(st.integers(0, 2**60), st.integers(0, 2**60))
def test_owner_values_round_trip(epoch: int, offset: int) -> None:
    assert parse_owner(format_owner(epoch, offset)) == (epoch, offset)
