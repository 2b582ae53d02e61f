"""Apicurio Registry, with its Confluent-compatible API and a database in one file."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import httpx

from driftline.embedded.cache import ArtifactCache
from driftline.embedded.java import java, jvm_flags
from driftline.embedded.part import Part
from driftline.embedded.ports import LOOPBACK, answers


class Registry(Part):
    """The schema registry. All of its listeners, the management's too, are on loopback."""

    name: ClassVar[str] = "registry"
    port_names: ClassVar[tuple[str, ...]] = ("registry", "registry_management")

    def __init__(self, folder: Path, ports: Mapping[str, int], cache: ArtifactCache) -> None:
        super().__init__(folder, ports)
        self._cache = cache

    @property
    def url(self) -> str:
        """The root of the Confluent-compatible API."""
        return f"http://{LOOPBACK}:{self.ports['registry']}/apis/ccompat/v7"

    def prepare(self) -> None:
        """Make the folders."""
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)

    def command(self) -> list[str | Path]:
        """Run the registry."""
        scratch = self.folder / "tmp"
        settings = {
            "quarkus.http.host": LOOPBACK,
            "quarkus.http.port": self.ports["registry"],
            "quarkus.management.host": LOOPBACK,
            "quarkus.management.port": self.ports["registry_management"],
            "quarkus.banner.enabled": "false",
            "quarkus.log.level": "WARN",
            "quarkus.log.console.format": "%d{yyyy-MM-dd HH:mm:ss,SSS} %p [%c] %s%e%n",
            'quarkus.log.category."io.apicurio".level': "WARN",
            'quarkus.log.category."io.quarkus.http.access-log".level': "WARN",
            # In memory by default. A file keeps the schemas over a restart; written at once, also over a kill.
            "apicurio.storage.kind": "sql",
            "apicurio.storage.sql.kind": "h2",
            "apicurio.datasource.url": f"jdbc:h2:file:{self.folder / 'db'};WRITE_DELAY=0",
            "apicurio.datasource.jdbc.initial-size": 2,
            "apicurio.datasource.jdbc.min-size": 2,
            "apicurio.datasource.jdbc.max-size": 20,
            "apicurio.storage.snapshot.location": scratch,
            "apicurio.import.work-dir": scratch,
        }
        flags = jvm_flags(heap="256m", scratch=scratch, archive=self._cache.archive(self.name))
        options = [f"-D{name}={value}" for name, value in settings.items()]
        jar = self._cache.registry_folder / "quarkus-run.jar"
        return [java(), *flags, "-XX:TieredStopAtLevel=1", *options, "-jar", jar]

    def ready(self) -> bool:
        """Whether the registry lists its subjects."""
        if not answers(self.ports["registry"]):
            return False
        try:
            return httpx.get(f"{self.url}/subjects", timeout=5, trust_env=False).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    @property
    def environment(self) -> dict[str, str]:
        """Return the registry's URL."""
        return {"SCHEMA_REGISTRY_URL": self.url}
