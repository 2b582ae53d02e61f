"""`driftline topics list|create|diagram` and `driftline schemas check|register`."""

from pathlib import Path
from typing import Annotated

import orjson
import typer
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from rich.console import Console
from rich.table import Table

from driftline.cli.options import JsonOption, ProjectOption, settings_for
from driftline.contracts.admin import create_topics
from driftline.contracts.diagram import flowchart
from driftline.contracts.registry import IncompatibleSchemaError, SchemaRegistry, project_topic_schemas
from driftline.contracts.topics import load_manifest
from driftline.runtime.durations import format_duration
from driftline.runtime.errors import UnavailableError

topics = typer.Typer(help="The project's topics, as schemas/topics.yaml declares them.", no_args_is_help=True)
schemas = typer.Typer(help="The project's schemas in the registry.", no_args_is_help=True)

_TIMEOUT_SECONDS = 10.0


@topics.command("list")
def list_topics(*, project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """List the project's topics: who writes and reads each, and whether the broker has it."""
    settings, loaded = settings_for(project)
    wanted = settings.topics(loaded).all_of(loaded)
    try:
        existing = AdminClient(settings.kafka_config()).list_topics(timeout=_TIMEOUT_SECONDS).topics
    except KafkaException as error:
        raise UnavailableError(f"the broker does not answer: {error}") from error
    if as_json:
        rows = [
            {**stream.model_dump(by_alias=True), "topic": name, "exists": name in existing}
            for name, stream in wanted.items()
        ]
        typer.echo(orjson.dumps(rows).decode())
        return
    table = Table()
    for heading in ("topic", "key", "producers", "consumers", "partitions", "kept", "exists"):
        table.add_column(heading)
    for name, stream in wanted.items():
        table.add_row(
            name,
            stream.key,
            ", ".join(stream.producers),
            ", ".join(stream.consumers),
            str(stream.partitions),
            format_duration(stream.retention_ms * 1000),
            "yes" if name in existing else "no",
        )
    Console().print(table)


@topics.command("create")
def create(
    *,
    replication: Annotated[int, typer.Option(min=1, help="Copies of each partition.")] = 1,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Create what is missing of the project's topics."""
    settings, loaded = settings_for(project)
    made = create_topics(settings.kafka_config(), loaded, settings.topics(loaded), replication=replication)
    if as_json:
        typer.echo(orjson.dumps({"created": made}).decode())
    else:
        typer.echo("\n".join(f"created {name}" for name in made) or "all topics were there")


@topics.command("diagram")
def diagram() -> None:
    """Print the streams and their services as a Mermaid diagram, made from the manifest."""
    typer.echo(flowchart(load_manifest()))


@schemas.command("check")
def check(*, project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Check the project's schemas against the registry's; nothing is registered."""
    settings, loaded = settings_for(project)
    names = settings.topics(loaded)
    problems = {}
    with SchemaRegistry(settings.schema_registry_url) as registry:
        for topic, schema in project_topic_schemas(loaded, names).items():
            try:
                registry.check(names.subject(topic), schema)
            except IncompatibleSchemaError as error:
                problems[topic] = str(error)
    if as_json:
        typer.echo(orjson.dumps({"compatible": not problems, "problems": problems}).decode())
    else:
        typer.echo("\n".join(problems.values()) or "all schemas are compatible")
    if problems:
        raise typer.Exit(1)


@schemas.command("register")
def register(*, project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Register the project's schemas; an incompatible one stops here, and nothing is registered."""
    settings, loaded = settings_for(project)
    with SchemaRegistry(settings.schema_registry_url) as registry:
        ids = registry.register_project(loaded, settings.topics(loaded))
    if as_json:
        typer.echo(orjson.dumps(ids).decode())
    else:
        typer.echo("\n".join(f"{schema_id:>6}  {topic}" for topic, schema_id in ids.items()))
