"""Ports are free, remembered, and given up when someone else takes them."""

import socket
from pathlib import Path

from driftline.embedded.ports import answers, free_port, is_free, remembered_ports


def test_ports_are_remembered(tmp_path: Path) -> None:
    first = remembered_ports(tmp_path / "ports.json", ["kafka", "valkey"])
    assert len(set(first.values())) == 2
    assert remembered_ports(tmp_path / "ports.json", ["kafka", "valkey"]) == first
    assert remembered_ports(tmp_path / "ports.json", ["valkey"]) == {"valkey": first["valkey"]}
    assert remembered_ports(tmp_path / "ports.json", ["kafka"]) == {"kafka": first["kafka"]}


def test_port_that_is_taken_is_replaced(tmp_path: Path) -> None:
    first = remembered_ports(tmp_path / "ports.json", ["kafka"])["kafka"]
    with socket.create_server(("127.0.0.1", first)):
        assert not is_free(first)
        assert answers(first)
        assert remembered_ports(tmp_path / "ports.json", ["kafka"])["kafka"] != first


def test_nothing_answers_on_a_free_port() -> None:
    assert not answers(free_port())
