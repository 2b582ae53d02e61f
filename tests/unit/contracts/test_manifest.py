"""The manifest is complete, nothing in it is orphaned, and the README's diagram comes from it."""

from pathlib import Path

from driftline.contracts.diagram import flowchart
from driftline.contracts.project_schemas import prediction_request_schema, prediction_schema
from driftline.contracts.record_codec import RecordCodec
from driftline.contracts.topics import Topics, load_manifest
from driftline.project import load_project

ROOT = Path(__file__).parents[3]
OUTSIDE = {"applications", "people"}


def test_every_producer_and_consumer_exists() -> None:
    services = {path.parent.name for path in (ROOT / "services").glob("*/__main__.py")}
    named = {
        name for stream in load_manifest().streams.values() for name in (*stream.producers, *stream.consumers)
    }
    assert named - OUTSIDE <= services
    assert services <= named


def test_every_topic_of_a_project_has_its_stream() -> None:
    project = load_project(ROOT / "examples" / "flights")
    topics = Topics(project.name, "dev").all_of(project)
    assert {f"dev.flights.{name}" for name in project.event_types} <= set(topics)
    assert all(topic.startswith("dev.flights.") for topic in topics)
    assert topics["dev.flights.arrivals"].partitions == (
        project.event_types["arrivals"].partitions or topics["dev.flights.arrivals"].partitions
    )


def test_generated_schemas_document_every_field_and_take_a_record() -> None:
    project = load_project(ROOT / "examples" / "flights")
    for schema in (prediction_request_schema(project), prediction_schema(project)):
        assert all(field["doc"] for field in schema["fields"])
        RecordCodec(schema)


def test_the_readme_shows_the_manifests_diagram() -> None:
    assert flowchart(load_manifest()) in (ROOT / "README.md").read_text()
