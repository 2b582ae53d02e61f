"""The command line `driftline`. A command's module is loaded when the command is used, so that help is quick."""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import typer
from rich.console import Console
from rich.markup import escape

from driftline import __version__
from driftline.runtime.errors import EXIT_CONFIGURATION, ConfigurationError, DriftlineError

HELP = "Events in, features fresh, predictions served and logged, every one explainable."


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command is: a function, or a Typer group of commands."""

    name: str
    place: str
    summary: str
    group: bool = False


ENTRIES = (
    Entry("up", "lifecycle:up", "Start everything for a project, and leave it running."),
    Entry("down", "lifecycle:down", "Stop what `up` started."),
    Entry("status", "lifecycle:status", "Say of each service whether it is alive, ready, how far behind."),
    Entry("doctor", "lifecycle:doctor", "Find what is missing or wrong, with the remedy."),
    Entry("check", "checking:check", "Find every mistake of a project before it is deployed."),
    Entry("demo", "demo:demo", "Play real events through everything, and show that it all adds up."),
    Entry("year", "year:year", "Play months through the whole loop, and report what each came to."),
    Entry("topics", "contracts:topics", "List, create and draw the project's topics.", group=True),
    Entry("schemas", "contracts:schemas", "Check and register the project's schemas.", group=True),
    Entry("publish", "publishing:publish", "Publish the events of a file."),
    Entry("tail", "publishing:tail", "Show what a topic carries, decoded."),
    Entry("dead-letters", "dead_letters:app", "List, show and resubmit what could not be used.", group=True),
    Entry("train", "training:train", "Train a model and make it the active version."),
    Entry("models", "models:app", "Versions of models, their champion and their life.", group=True),
    Entry("predict", "reading:predict", "Ask for a prediction."),
    Entry(
        "features", "reading:features", "Read an entity's features, compare versions of views.", group=True
    ),
    Entry("drift", "drift:app", "Show drift, its damage, where and since when.", group=True),
    Entry("alerts", "alerts:app", "What is wrong, who was told, and who takes care of it.", group=True),
    Entry("activity", "activity:activity", "Tell what happened: views, models, drift, retrains, alerts."),
    Entry("archive", "archive:app", "Ask and look after the archive of every topic.", group=True),
    Entry(
        "training-set", "training_sets:app", "Build, check, list and pull named training sets.", group=True
    ),
    Entry("parity", "parity:parity", "Compute served feature values again, and compare them."),
    Entry("trace", "reading:trace", "Tell the whole story of a request."),
    Entry("replay", "replay:replay", "Score logged requests again, bit for bit, or with another version."),
)


def build(arguments: Sequence[str]) -> typer.Typer:
    """Return the application; only the command that the arguments name is loaded, the others are listed."""
    app = typer.Typer(
        name="driftline",
        help=HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(_root)
    wanted = next((one for one in arguments if not one.startswith("-")), "")
    for entry in ENTRIES:
        if entry.name != wanted:
            app.command(entry.name, help=entry.summary)(_listed)
            continue
        module, attribute = entry.place.split(":")
        found = getattr(importlib.import_module(f"driftline.cli.{module}"), attribute)
        if entry.group:
            app.add_typer(found, name=entry.name)
        else:
            app.command(entry.name)(found)
    return app


def main() -> None:
    """Run the command line; an error that driftline understands is one line and an exit code."""
    try:
        build(sys.argv[1:])()
    except DriftlineError as error:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(EXIT_CONFIGURATION if isinstance(error, ConfigurationError) else 1)


def _root(
    *, version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True)
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _listed() -> None:
    """Stand in the help for a command that is loaded when it is used."""


if __name__ == "__main__":
    main()
