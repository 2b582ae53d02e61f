"""A call that takes too long is stopped between the model's operators; others are left alone."""

import threading

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from driftline.models.scoring import open_session
from driftline.serving.time_limit import CallTimeoutError, TimeLimit


def looping(times: int) -> bytes:
    """Return a model that sines its two columns so many times, one operator each."""
    kept = helper.make_tensor_value_info("kept", TensorProto.FLOAT, None)
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["goes"]), helper.make_node("Sin", ["before"], ["kept"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [helper.make_tensor_value_info("goes", TensorProto.BOOL, []), kept],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["times", "always", "numeric"], ["probabilities"], body=body)],
        "graph",
        [helper.make_tensor_value_info("numeric", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, None)],
        [
            helper.make_tensor("times", TensorProto.INT64, [], [times]),
            helper.make_tensor("always", TensorProto.BOOL, [], [True]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = onnx.ModelProto.SerializeToString(model)
    return content


def test_a_call_without_end_is_stopped_and_the_next_one_is_not() -> None:
    limit = TimeLimit()
    feed = {"numeric": np.ones((3, 2), np.float32)}
    with pytest.raises(CallTimeoutError, match=r"longer than 0\.2 s"):
        limit.runner(0.2)(open_session(looping(10**12)), feed)
    np.testing.assert_allclose(limit.runner(60)(open_session(looping(1)), feed), np.sin(1), rtol=1e-6)


def test_what_a_call_was_stopped_with_is_not_used_again() -> None:
    limit = TimeLimit()
    feed = {"numeric": np.ones((3, 2), np.float32)}
    session = open_session(looping(1))
    expected = limit.runner(60)(session, feed)
    with pytest.raises(CallTimeoutError):
        limit.runner(0.05)(open_session(looping(10**12)), feed)  # with the options of the first
    for _ in range(3):
        assert limit.runner(60)(session, feed).tobytes() == expected.tobytes()


def test_only_the_call_that_is_too_late_is_stopped() -> None:
    limit = TimeLimit()
    feed = {"numeric": np.ones((1, 2), np.float32)}
    found: list[str] = []

    def call() -> None:
        try:
            limit.runner(60)(open_session(looping(3_000_000)), feed)
        except CallTimeoutError:
            found.append("stopped")
        else:
            found.append("back")

    thread = threading.Thread(target=call)
    thread.start()
    with pytest.raises(CallTimeoutError):
        limit.runner(0.05)(open_session(looping(10**12)), feed)
    thread.join()
    assert found == ["back"]


def test_what_a_model_raises_itself_passes() -> None:
    with pytest.raises(Exception, match="numeric"):
        TimeLimit().runner(60)(open_session(looping(1)), {"numeric": np.ones((1, 5), np.float32)})
