"""Signals, model events and failures of services become alerts that reach people."""
