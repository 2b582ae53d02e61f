"""The README's diagram, drawn from the topics manifest."""

from driftline.contracts.topics import Manifest

#: It reads every stream, which is said once instead of with an arrow from each.
_READS_ALL = "archiver"


def flowchart(manifest: Manifest) -> str:
    """Return a Mermaid flowchart: who produces and who consumes each stream."""
    lines = ["flowchart LR"]
    for stream in manifest.streams.values():
        node = stream.name.replace("-", "_")
        lines.append(f"    {node}[/{stream.name}/]")
        lines += [f"    {producer} --> {node}" for producer in stream.producers]
        lines += [f"    {node} --> {consumer}" for consumer in stream.consumers if consumer != _READS_ALL]
    lines.append("    feature_store --> store[(online store)]")
    lines.append("    store --> predictor")
    lines.append(f"    all[/every topic/] --> {_READS_ALL}")
    return "\n".join(lines)
