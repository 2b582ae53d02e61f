"""Ingest with its small project, as the ingest tests have it."""

from tests.integration.ingest.conftest import ingest, shop

__all__ = ["ingest", "shop"]
