"""`driftline predict`, `driftline features get`, `driftline trace`: ask and understand."""

import contextlib
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer
from rich.columns import Columns
from rich.console import Console
from rich.padding import Padding

from driftline.cli.feature_status import status as feature_status
from driftline.cli.options import JsonOption, ProjectOption, echo_json, settings_for
from driftline.cli.view_versions import diff
from driftline.contracts.registry import SchemaRegistry
from driftline.runtime.errors import ConfigurationError, RefusedError, UnavailableError
from driftline.runtime.instance_file import read_instance_files
from driftline.serving.tracing import Trace, ViewTrace, trace_request

features = typer.Typer(help="Read an entity's features, compare versions of views.", no_args_is_help=True)
features.command("diff")(diff)
features.command("status")(feature_status)

StateOption = Annotated[Path, typer.Option(envvar="DRIFTLINE_STATE", help="Folder of this machine's state.")]
UrlOption = Annotated[
    str,
    typer.Option(envvar="DRIFTLINE_PREDICTOR_URL", help="The predictor, where it is not this machine's own."),
]
_TIMEOUT = 15.0
_EVENTS_SHOWN = 3


def predict(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    *,
    entity: Annotated[
        list[str] | None, typer.Option("--entity", "-e", help="NAME=KEY; once for each entity.")
    ] = None,
    given: Annotated[
        list[str] | None, typer.Option("--input", "-i", help="NAME=VALUE; numbers as such.")
    ] = None,
    event_time: Annotated[str | None, typer.Option(help="ISO 8601 with an offset; now if left out.")] = None,
    request_id: Annotated[str | None, typer.Option(help="UUID of the request; made if left out.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="Score every row of a file: .parquet, .csv, .jsonl or .avro.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --file: the rows with their scores, .parquet or .csv.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --file: only say which rows are wrong.")
    ] = False,
    run: Annotated[
        str, typer.Option(help="With --file: name of a further run, to score and log the same file again.")
    ] = "",
    batch_rows: Annotated[int, typer.Option(min=1, help="With --file: rows scored at a time.")] = 10_000,
    project: ProjectOption = Path(),
    url: UrlOption = "",
    state: StateOption = Path(".driftline"),
    as_json: JsonOption = False,
) -> None:
    """Ask a running predictor for a prediction, or score and log every row of a file.

    A file needs no predictor: it is scored here, with the active version, and its predictions are in the log exactly
    once, however often the command is killed and run again. The exit code is 1 if a row has no score.

    Example: driftline predict lateness -e origin=JFK -e carrier=UA -e dest=LAX -i distance=2475

    Example: driftline predict lateness --file flights.parquet --out scored.parquet
    """
    if file is not None:
        if entity or given or request_id or url:
            raise ConfigurationError(
                "--file brings the requests: leave --entity, --input, --request-id and --url away"
            )
        # Only here: a model's runtime would slow the other commands down.
        from driftline.cli.predict_file import FileRequest, check_file, predict_file

        asked = FileRequest(
            model=model,
            file=file,
            out=out,
            run=run,
            event_time=event_time,
            batch_rows=batch_rows,
            as_json=as_json,
        )
        if dry_run:
            check_file(asked, project)
        else:
            predict_file(asked, project, state)
        return
    if out or run or dry_run:
        raise ConfigurationError("--out, --run and --dry-run are for files: name one with --file")
    if not entity:
        raise ConfigurationError("name each entity with -e NAME=KEY, or a file of requests with --file")
    url = _predictor_url(url, state)
    body: dict[str, Any] = {"entities": _pairs(entity)}
    if given:
        body["inputs"] = _inputs(_call(url, "GET", "/v1/models")["models"], model, _pairs(given))
    if event_time is not None:
        body["event_time"] = event_time
    if request_id is not None:
        body["request_id"] = request_id
    answer = _call(url, "POST", f"/v1/models/{quote(model, safe='')}/predictions", body)
    if as_json:
        echo_json(answer)
        return
    console = Console()
    console.print(
        f"{answer['decision']} (score {answer['score']:.4f}) by {answer['model']}@{answer['version']}",
        style="bold",
    )
    for name, view in answer["features"].items():
        _print_values(console, f"{name}@{view['version']}, {view['status']}", view["age_ms"], view["values"])
    console.print(f"driftline trace {answer['request_id']}", highlight=False)


@features.command("get")
def get(
    view: Annotated[str, typer.Argument(help="Name of the feature view.")],
    entity: Annotated[str, typer.Argument(help="The entity's key.")],
    *,
    as_of: Annotated[str | None, typer.Option(help="ISO 8601 with an offset; now if left out.")] = None,
    url: UrlOption = "",
    state: StateOption = Path(".driftline"),
    as_json: JsonOption = False,
) -> None:
    """Show an entity's features as they would be served, with their age."""
    query = {} if as_of is None else {"as_of": as_of}
    path = f"/v1/features/{quote(view, safe='')}/{quote(entity, safe='')}"
    answer = _call(_predictor_url(url, state), "GET", path, query=query)
    if as_json:
        echo_json(answer)
        return
    title = f"{answer['view']}@{answer['version']} of {entity} as of {answer['as_of']}, {answer['status']}"
    console = Console()
    _print_values(console, title, answer["age_ms"], answer["values"])
    if answer["defaults"]:
        console.print(f"    declared defaults: {', '.join(answer['defaults'])}", style="dim", highlight=False)


def trace(
    request_id: Annotated[str, typer.Argument(help="UUID of the request.")],
    *,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Tell the whole story of a request: events, features, model, score, decision."""
    settings, loaded = settings_for(project)
    console = Console(stderr=True)
    with (
        console.status("Reading the log") as status,
        SchemaRegistry(settings.schema_registry_url) as registry,
    ):
        found = trace_request(
            loaded,
            settings.topics(loaded),
            settings.kafka_config(),
            registry,
            request_id,
            tell=status.update,
        )
    if as_json:
        echo_json(found.as_json())
    else:
        print_trace(Console(), found)


def print_trace(console: Console, found: Trace) -> None:
    """Print a trace for a person."""
    one = found.prediction
    console.print(f"Request {found.request_id}", style="bold", highlight=False)
    facts = {
        "asked": f"{one['requested_at']} over {one['channel']}"
        + (f" by {one['caller']}" if one["caller"] else ""),
        "as of": one["event_time"],
        "model": f"{one['model']}@{one['model_version']}" + (f", arm {one['arm']}" if one.get("arm") else ""),
        "status": one["status"] + (f": {one['error']}" if one["error"] else ""),
        "score": "none" if one["score"] is None else f"{one['score']:.6f}, so {one['decision']}",
        "took": f"{one['duration_us'] / 1000:.1f} ms, logged at partition {found.partition}, offset {found.offset}"
        + (f", {found.records} records of this request" if found.records > 1 else ""),
    }
    if one.get("degraded"):
        facts["store"] = f"{one['degraded']}; features are as for entities without events"
    for name, text in facts.items():
        console.print(f"  {name:<7} {text}", highlight=False)
    for view in found.views:
        title = f"{view.view}@{view.version} of {view.entity} {view.key}"
        _print_values(console, f"{title}, {_made_from(view)}", view.age_ms, view.values)
        _print_events(console, view)


def _made_from(view: ViewTrace) -> str:
    number = f"made from {'' if view.complete else 'at least '}{view.events:,} events"
    match view.recomputed_equal:
        case True:
            return f"{number} (computed again: equal)"
        case False:
            return f"{number} (computed again: [red]different[/red])"
        case _:
            return number


def _print_events(console: Console, view: ViewTrace) -> None:
    for event in view.newest[:_EVENTS_SHOWN]:
        told = ", ".join(f"{name} {value}" for name, value in event.items() if value is not None)
        console.print(f"    {told}", style="dim", highlight=False, overflow="ellipsis", no_wrap=True)


def _print_values(console: Console, title: str, age_ms: int | None, values: dict[str, float | None]) -> None:
    """Print a view's values, a few a line: a story of seven views fits a screen."""
    age = "no events yet" if age_ms is None else f"newest event {age_ms / 1000:,.0f} s old"
    console.print(f"  [bold]{title}[/bold]; {age}", highlight=False)
    texts = [f"{name} {'null' if value is None else f'{value:,.6g}'}" for name, value in values.items()]
    console.print(Padding(Columns(texts, padding=(0, 3)), (0, 0, 0, 4)), highlight=False)


def _pairs(given: list[str]) -> dict[str, str]:
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigurationError(f"write NAME=VALUE, not {text!r}")
        pairs[name] = value
    return pairs


def _inputs(models: list[dict[str, Any]], model: str, given: dict[str, str]) -> dict[str, float | str]:
    """Return inputs as the model takes them; what is no number stays a text, for the predictor to refuse."""
    types: dict[str, str] = next((one["inputs"] for one in models if one["name"] == model), {})
    values: dict[str, float | str] = {}
    for name, text in given.items():
        values[name] = text
        if types.get(name) == "double":
            with contextlib.suppress(ValueError):
                values[name] = float(text)
    return values


def _call(
    url: str, method: str, path: str, body: dict[str, Any] | None = None, query: dict[str, str] | None = None
) -> dict[str, Any]:
    try:
        answer = httpx.request(method, url + path, json=body, params=query, timeout=_TIMEOUT)
        content: dict[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise UnavailableError(f"the predictor at {url} does not answer: {error}") from error
    if not answer.is_success:
        detail = str(content.get("detail") or content)
        if answer.status_code in (429, 503):
            raise UnavailableError(detail)
        raise RefusedError(detail, status=answer.status_code)
    return content


def _predictor_url(url: str, state: Path) -> str:
    """Return where to ask: what was named, else this machine's own predictor."""
    if url:
        return url.rstrip("/")
    for instance in read_instance_files(state):
        if instance.service == "predictor":
            return f"http://127.0.0.1:{instance.port}"
    raise ConfigurationError(
        f"no predictor runs from {state}; start one with `driftline up`, or name one with --url"
    )
