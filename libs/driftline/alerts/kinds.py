"""Kinds of problems, by which alerts are grouped, rated and given a runbook."""

DRIFT, QUALITY, ACCURACY = "drift", "quality", "accuracy"
TRAINING, PROMOTION, CHAMPION, ACTIVITY = "training", "promotion", "champion", "activity"
SERVICE, ROUTE, PARITY, LEVELS, DEPRECATED = "service", "route", "parity", "levels", "deprecated"
KINDS = (
    *(DRIFT, QUALITY, ACCURACY, TRAINING, PROMOTION, CHAMPION, ACTIVITY),
    *(SERVICE, ROUTE, PARITY, LEVELS, DEPRECATED),
)
