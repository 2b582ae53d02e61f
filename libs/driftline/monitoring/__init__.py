"""What the monitor measures and how it judges: references, mergeable profiles, statistics, thresholds, damage."""
