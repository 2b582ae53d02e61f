"""The diagram shows every stream and every service of the manifest."""

from driftline.cli.contracts import mermaid
from driftline.contracts.topics import load_manifest


def test_the_diagram_names_every_stream_producer_and_consumer() -> None:
    lines = mermaid().splitlines()
    assert lines[0] == "flowchart LR"
    for stream in load_manifest().streams.values():
        node = f"topic_{stream.name.replace('-', '_')}"
        assert f"    {node}[({stream.name})]" in lines
        for service in stream.producers:
            assert f"    {service} --> {node}" in lines
        for service in stream.consumers:
            assert f"    {node} --> {service}" in lines
