"""The report of a long play as Markdown, from its measured figures alone."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from driftline.models.model_event import Kind
from driftline.playback.year import Month, Offer, Year

_TOLD = frozenset(
    {Kind.REJECTED, Kind.DATA_REFUSED, Kind.TRAINING_FAILED, Kind.PROMOTED, Kind.ROLLED_BACK, Kind.RETIRED}
)


def year_markdown(year: Year, command: str) -> str:
    """Return the report; ``command`` is what made it."""
    parts = [
        f"# A year of {year.project}",
        f"Made by `{command}`; do not edit. Every figure was measured in that run.",
        _setting(year),
        "## Log loss, month by month",
        (
            f"*static*: the version trained on {year.trained_from} to {year.start}, all the time. *served*: whatever was "
            "champion when a prediction was served, from the log. *plain*: trained anew on the first of every month on "
            f"everything known so far, candidate `{year.candidate}`, offline, without gates. All three on the same "
            "requests with the features as served; months are those of the requests, UTC."
        ),
        _losses(year),
        "## What the loop did, month by month",
        (
            "Signals by level, those of a part (an airport, an airline) apart; retrains by what asked for them; refusals are versions rejected by a gate or in shadow, "
            "refused data and failed trainings. Months are those from which something holds, in event time."
        ),
        _deeds(year.months),
        "## Retrains and what they came to",
        _retrains(year),
        "## Decisions",
        _decisions(year.models),
        "## Versions that served",
        _versions(year.versions),
    ]
    for offer in year.offers:
        parts += _offer(offer)
    parts += ["## How long it took", _seconds(year)]
    return "\n\n".join(parts) + "\n"


def _setting(year: Year) -> str:
    outcomes = ", ".join(f"{count:,} {kind.lower()}" for kind, count in sorted(year.outcomes.items()))
    unclosed = (
        "" if not year.unclosed_windows else f" Windows that did not close in time: {year.unclosed_windows}."
    )
    return (
        f"Model `{year.model}`, {year.start} to {year.end} (exclusive) in steps of {year.step_minutes} minutes, "
        "by which features may be older than at their request: "
        f"{year.predictions:,} predictions, outcomes: {outcomes}. Alerts: {_counts(year.alerts)}.{unclosed}"
    )


def _losses(year: Year) -> str:
    rows = [
        [
            month.month,
            f"{month.outcomes:,}",
            _share(month.positive_share),
            *(_number(getattr(month.log_loss, name)) for name in ("static", "served", "plain")),
        ]
        for month in year.months
        if month.outcomes
    ]
    total = sum(month.outcomes for month in year.months)
    positive = sum(month.outcomes * (month.positive_share or 0) for month in year.months)
    overall = year.overall
    rows.append(
        [
            "**all**",
            f"{total:,}",
            _share(positive / total if total else None),
            *(f"**{_number(one)}**" for one in (overall.static, overall.served, overall.plain)),
        ]
    )
    return _table(["month", "outcomes", "true", "static", "served", "plain"], rows, left=1)


def _deeds(months: Sequence[Month]) -> str:
    rows = [
        [
            month.month,
            _counts(month.signals),
            _counts(month.retrains),
            str(month.refusals),
            str(month.promotions),
            str(month.roll_backs),
        ]
        for month in months
    ]
    return _table(["month", "signals", "retrains", "refusals", "promotions", "roll-backs"], rows, left=3)


def _retrains(year: Year) -> str:
    ends = {one["version"]: one for one in year.models if one["kind"] in _TOLD}
    rows = []
    for one in year.retrains:
        end = ends.get(one["version"])
        came_to = "nothing decided yet" if end is None else f"{_words(end['kind'])} {end['at'][:10]}"
        rows.append([one["data_until"][:10], one["cause"].lower(), one["reason"], came_to])
    return _table(["data until", "cause", "reason", "in the end"], rows, left=4) if rows else "None."


def _decisions(models: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        [one["at"][:10], _words(one["kind"]), f"`{one['version']}`", one["reason"]]
        for one in sorted(models, key=lambda one: str(one["at"]))
        if one["kind"] in _TOLD
    ]
    return _table(["from", "what", "version", "why"], rows, left=4) if rows else "None."


def _versions(versions: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            f"`{one['version']}`",
            f"{one['outcomes']:,}",
            _number(one["log_loss"]),
            _number(one["first_version"]["log_loss"]),
            f"{one['value']:,.0f}",
            f"{one['first_version']['value']:,.0f}",
        ]
        for one in versions
    ]
    return _table(["version", "outcomes", "log loss", "static's", "value", "static's"], rows, left=1)


def _offer(offer: Offer) -> list[str]:
    facts = [[one["at"][:10], _words(one["kind"]), one["by"], one["reason"]] for one in offer.facts]
    end = offer.end
    verdict = (
        "Nothing was decided." if end is None else f"In the end: {_words(end['kind'])}, {end['reason']}."
    )
    return [
        f"## The model of {offer.learnt_from} to {offer.learnt_until} alone",
        f"Offered through a retrain request, version `{offer.version}`. {verdict}",
        _table(["from", "what", "by", "why"], facts, left=4),
    ]


def _seconds(year: Year) -> str:
    rows = [[name, f"{seconds:,.0f}"] for name, seconds in year.seconds.items()]
    return _table(["what", "seconds"], rows, left=1)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int) -> str:
    """Return a Markdown table whose first ``left`` columns are text, the others numbers."""
    rule = ["---" if at < left else "---:" for at in range(len(headings))]
    cells = [headings, rule, *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in cells)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _words(kind: str) -> str:
    return kind.lower().replace("_", " ")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {_words(name)}" for name, number in Counter(counts).items()) or "none"


def _number(found: float | None) -> str:
    return "–" if found is None else f"{found:.4f}"


def _share(found: float | None) -> str:
    return "–" if found is None else f"{found:.1%}"
