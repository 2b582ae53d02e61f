"""What the stack asks of each of its servers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar


class Part(ABC):
    """A server of the embedded stack: its ports, how it is prepared and started, when it is ready.

    ``folder`` holds everything that it keeps; ``ports`` has one port for each of ``port_names``.
    """

    name: ClassVar[str]
    port_names: ClassVar[tuple[str, ...]]
    patience: ClassVar[float] = 15.0

    def __init__(self, folder: Path, ports: Mapping[str, int]) -> None:
        self.folder = folder
        self.ports = ports

    def prepare(self) -> None:
        """Write what the server needs before it starts; may take a second or two at the first start."""
        self.folder.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def command(self) -> list[str | Path]:
        """Return the command line."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether the server does its work, asked as a client would."""

    @property
    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Return the variables by which clients find the server."""
