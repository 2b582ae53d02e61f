"""Alerts: causes become alerts, alerts become notifications. The book is pure; delivery alone talks to the world."""
