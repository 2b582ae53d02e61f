"""A small S3 on loopback: what delta-rs needs of it, with conditional put, and every object kept in memory.

A process of its own: delta-rs holds Python's lock in some calls, and would wait for a server on a thread for ever.
"""

import datetime as dt
import hashlib
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

_TOLD = "/-told"
_NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A store that runs."""

    port: int

    @property
    def environment(self) -> dict[str, str]:
        """The variables under which a client finds it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "eu-central-1",
        }

    def told(self) -> dict[str, Any]:
        """Return the ``names`` of all objects, and how many puts were ``refused`` because one was there."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.port}{_TOLD}") as answer:
            return json.load(answer)  # type: ignore[no-any-return]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.refused = 0
        self.lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""

    def _split(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return unquote(parts.path), parse_qs(parts.query, keep_blank_values=True)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _object(self, data: bytes) -> dict[str, str]:
        return {
            "ETag": f'"{hashlib.md5(data).hexdigest()}"',
            "Last_Modified": _NOW.strftime("%a, %d %b %Y %H:%M:%S GMT"),
        }

    def do_HEAD(self) -> None:
        data = self.server.objects.get(self._split()[0])
        if data is None:
            self._answer(404)
        else:
            self._answer(200, Content_Length=str(len(data)), **self._object(data))

    def do_GET(self) -> None:
        path, query = self._split()
        if path == _TOLD:
            told = {"names": sorted(self.server.objects), "refused": self.server.refused}
            self._answer(200, json.dumps(told).encode())
            return
        if "list-type" in query:
            self._list(path, query)
            return
        data = self.server.objects.get(path)
        if data is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        wanted = self.headers.get("Range")
        if wanted is None:
            self._answer(200, data, **self._object(data))
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start = int(first) if first else len(data) - int(last)
        stop = int(last) + 1 if first and last else len(data)
        part = data[start:stop]
        place = f"bytes {start}-{start + len(part) - 1}/{len(data)}"
        self._answer(206, part, Content_Range=place, **self._object(data))

    def do_PUT(self) -> None:
        path, query = self._split()
        body = self._body()
        with self.server.lock:
            if "uploadId" in query:
                self.server.uploads[query["uploadId"][0]][int(query["partNumber"][0])] = body
            elif self.headers.get("If-None-Match") == "*" and path in self.server.objects:
                self.server.refused += 1
                self._answer(412)
                return
            else:
                self.server.objects[path] = body
        self._answer(200, **self._object(body))

    def do_POST(self) -> None:
        path, query = self._split()
        body = self._body()
        if "delete" in query:
            found = ElementTree.fromstring(body)
            for key in found.iter():
                if key.tag.endswith("Key"):
                    self.server.objects.pop(f"{path.rstrip('/')}/{key.text}", None)
            self._answer(200, b"<DeleteResult></DeleteResult>")
        elif "uploads" in query:
            name = str(len(self.server.uploads))
            self.server.uploads[name] = {}
            xml = (
                f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
            )
            self._answer(200, xml.encode())
        else:
            parts = self.server.uploads.pop(query["uploadId"][0])
            data = b"".join(parts[number] for number in sorted(parts))
            self.server.objects[path] = data
            tag = self._object(data)["ETag"].strip('"')
            xml = f"<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>"
            self._answer(200, xml.encode())

    def do_DELETE(self) -> None:
        self.server.objects.pop(self._split()[0], None)
        self._answer(204)

    def _list(self, path: str, query: dict[str, list[str]]) -> None:
        bucket = path.rstrip("/") + "/"
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        after = query.get("start-after", [""])[0]
        contents, folders = [], set()
        for name, data in sorted(self.server.objects.items()):
            key = name.removeprefix(bucket)
            if not name.startswith(bucket) or not key.startswith(prefix) or key <= after:
                continue
            rest = key[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
                continue
            contents.append(
                f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size><ETag>x</ETag>"
                f"<LastModified>{_NOW:%Y-%m-%dT%H:%M:%S.000Z}</LastModified></Contents>"
            )
        shown = "".join(
            f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in sorted(folders)
        )
        xml = (
            f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(contents)}{shown}</ListBucketResult>"
        )
        self._answer(200, xml.encode())


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Run a store for the length of the block."""
    process = subprocess.Popen([sys.executable, "-P", __file__], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield ObjectStore(int(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def main() -> None:
    """Serve, after saying on which port."""
    server = _Server()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
