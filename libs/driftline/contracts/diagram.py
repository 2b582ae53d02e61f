"""The README's diagram, drawn from the topics manifest."""

from driftline.contracts.topics import Manifest


def flowchart(manifest: Manifest) -> str:
    """Return a Mermaid flowchart: who produces and who consumes each stream."""
    lines = ["flowchart LR"]
    for stream in manifest.streams.values():
        node = stream.name.replace("-", "_")
        lines.append(f"    {node}[/{stream.name}/]")
        lines += [f"    {producer} --> {node}" for producer in stream.producers]
        lines += [f"    {node} --> {consumer}" for consumer in stream.consumers]
    lines.append("    feature_store --> store[(online store)]")
    lines.append("    store --> predictor")
    return "\n".join(lines)
