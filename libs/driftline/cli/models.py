"""`driftline models ...`: which versions there are, who is champion, and what a person wants done about it."""

import typer

from driftline.cli.model_asking import approve, promote, pull, reject, retrain, rollback
from driftline.cli.model_reading import list_versions, show_champion, show_history, show_version
from driftline.cli.trials import ab, canary, stop_canary

app = typer.Typer(help="Versions of models, their champion, and their life.", no_args_is_help=True)

app.command("list")(list_versions)
app.command("show")(show_version)
app.command("history")(show_history)
app.command("champion")(show_champion)
app.command("promote")(promote)
app.command("approve")(approve)
app.command("reject")(reject)
app.command("rollback")(rollback)
app.command("pull")(pull)
app.command("retrain")(retrain)
app.command("canary")(canary)
app.command("stop-canary")(stop_canary)
app.add_typer(ab, name="ab")
