"""The model card: one page for a person who must decide whether to trust the model."""

from driftline.models.bundle import BundleManifest

_NAMES = {
    "model": "this model",
    "moving_average": "24-hour moving average",
    "constant": "constant",
}


def model_card(manifest: BundleManifest) -> str:
    """Return the card as Markdown; every figure comes from the manifest.

    The headings follow Mitchell et al., "Model Cards for Model Reporting" (2019), as far as there is
    something to say.
    """
    training = manifest.training
    decision = manifest.decision
    lines = [
        f"# {manifest.ref}",
        "",
        manifest.description or "No description was declared.",
        "",
        f"Owner: {manifest.owner}. Trained {manifest.created_at} by driftline for the project `{manifest.project}`.",
        _why(manifest),
        "",
        "## Use",
        "",
        f"The score is a probability. The decision is `{decision.above}` where it is {decision.threshold:g} or more, "
        f"else `{decision.below}`.",
        "",
        "## Data",
        "",
        f"Requests from {training.start} to {training.end}: {training.rows:,} with a label known by the end, "
        f"{training.without_label:,} without one (not used). True in {training.positive_share:.1%} of them.",
        "Features are point-in-time: a fact counts from the moment it was known.",
        "",
        "## Quality",
        "",
        f"Measured on the {training.validation_rows:,} requests from {training.validation_start} on, by a model "
        "that had seen only what was known before. The served model then learned from all rows.",
        "",
        "| | area under the curve | log loss | Brier score |",
        "|---|---|---|---|",
        *(
            f"| {_NAMES.get(name, name)} | {found.auc:.3f} | {found.log_loss:.4f} | {found.brier:.4f} |"
            for name, found in manifest.metrics.items()
        ),
        "",
        "## Inputs",
        "",
        f"{len(manifest.numeric)} numbers and {len(manifest.categorical)} categories "
        f"({', '.join(f'`{name}`' for name in manifest.categorical) or 'none'}), from the feature views "
        f"{', '.join(f'`{view}`' for view in manifest.views) or 'none'}. `manifest.json` lists them in order.",
        "",
        *(line for told in manifest.deprecated for line in (f"**Deprecated**: {told}.", "")),
        "## Make",
        "",
        f"Candidate `{manifest.candidate}`: {manifest.estimator}. The ONNX model equals the pipeline within "
        f"{manifest.conversion.max_difference:.1e} on {manifest.conversion.rows:,} rows, missing values and "
        "unseen categories included.",
        "",
        f"Training set SHA-256: `{training.sha256}`. Built with "
        + ", ".join(f"{name} {version}" for name, version in manifest.environment.items())
        + ".",
        "",
    ]
    return "\n".join(lines)


def _why(manifest: BundleManifest) -> str:
    cause = manifest.cause
    if cause is None:
        return "A person trained it with `driftline train`."
    return f"Cause: {cause.cause.lower()}, {cause.reason} (request `{cause.request_id}` by {cause.requested_by})."
