"""The page of a sweep while it runs, in this process or another one: a server for this machine only, which reads the store."""

import html
import json
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ..sweep.loading import load
from ..sweep.result import Result
from ..sweep.status import sweep_status
from ..sweep.store import StoreError, open_store
from ..sweep.values import redacted
from .numbers import duration, plural
from .page import render
from .progress import is_notebook
from .tables import print_result
from .terminal import console
from .text import shown

HOST = "127.0.0.1"
_HERE = Path(__file__).parent
_EMPTY = (
    "<!doctype html><meta charset='utf-8'><title>tsjax</title><p style='font-family: system-ui'>No records yet.</p>"
)


def show_result(result: Result, height: int = 900) -> None:
    """Shows the page of a result in a notebook, in a frame that is `height` pixels high; elsewhere prints its tables."""
    if not is_notebook():
        print_result(result, console())
        return
    from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]

    page = html.escape(render(result), quote=True)
    frame = f'<iframe srcdoc="{page}" style="width:100%;height:{height}px;border:0" title="tsjax"></iframe>'
    display(HTML(f"<div>{frame}</div>"))


class LiveServer(ThreadingHTTPServer):
    """Serves the page of a store on `port` of the loopback interface, a free one by default: `serve_forever`, then `shutdown`.

    `/` shows the progress of the sweep, and below it the report, which is rendered again when there are new records;
    `/status.json` holds the numbers; `/report` is the report alone. Nothing can be written, and no code that the store names is
    run. Requests to names other than localhost are refused, so that no web page can read the report through a host name that it
    controls.

    **Raises:** StoreError if there is no store; OSError if the port is taken.
    """

    daemon_threads = True

    def __init__(self, directory: str | Path, port: int = 0):
        self.store = open_store(directory)
        # So that a folder without a store is refused at once.
        self.store.content()
        self.directory, self._lock = directory, threading.Lock()
        self._version, self._page = "", _EMPTY
        super().__init__((HOST, port), _Handler)

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.server_port}/"

    def status(self) -> dict[str, Any]:
        """The progress of the sweep (`tsjax.sweep.status.sweep_status`), with sentences for the page."""
        content = sweep_status(self.directory)
        complete = content["done"] == content["cells"] and not content["damaged"]
        text = f"{content['done']} of {plural(content['cells'], 'cell')}, {content['failed']} failed"
        age, left = self._age(), content["seconds_left"]
        if complete:
            text += ", complete"
        elif left is not None and content["done"]:
            text += f"; {duration(left)} of computing left"
        if not complete and age is not None:
            text += f"; last chunk {duration(age)} ago"
        failures = [{"cells": count, "text": shown(reason)} for reason, count in content["failures"].items()]
        curves = [{**curve, "curve": shown(curve["curve"])} for curve in content["curves"]]
        extra = {"complete": complete, "sentence": text + ".", "version": self.version, "failures": failures}
        return content | extra | {"curves": curves}

    def _age(self) -> float | None:
        """Seconds since the last chunk was written; None for a store at a URL, or without chunks."""
        folder = Path(self.store.path) / "chunks" if isinstance(self.store.path, Path) else None
        times = [entry.stat().st_mtime for entry in folder.iterdir()] if folder is not None and folder.is_dir() else []
        return max(0.0, time.time() - max(times)) if times else None

    @property
    def version(self) -> str:
        """A text that changes when the records change: the names of chunks are hashes of their content."""
        names = sorted(self.store.files.names("chunks"))
        return f"{len(names)}-{hash(tuple(names)) & 0xFFFFFFFF:08x}"

    def report(self) -> str:
        """The report of the present records, rendered once for each version."""
        with self._lock:
            version = self.version
            if version != self._version:
                result = load(self.directory)
                self._page = _EMPTY if result.records.empty else render(result)
                self._version = version
            return self._page

    def page(self) -> str:
        """The page around the report."""
        environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_HERE), autoescape=True)
        spec = self.store.spec
        return environment.get_template("live.html").render(
            title=shown(spec.claim or f"Sweep of {spec.study}"), style=Markup((_HERE / "page.css").read_text())
        )

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores browsers that close the connection in the middle of an answer."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        name = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if name not in (HOST, "localhost"):
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", "this server answers to localhost alone")
            return
        path, made = self.path.partition("?")[0], {"/": "page", "/report": "report", "/status.json": "status"}
        if path not in made:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", "no such page")
            return
        try:
            content = getattr(self.server, made[path])()
        except (StoreError, ValueError, OSError) as error:
            # The store is being created, or was moved away: the page says so, and asks again.
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", shown(redacted(str(error))))
            return
        if isinstance(content, str):
            self._answer(HTTPStatus.OK, "text/html", content)
        else:
            self._answer(HTTPStatus.OK, "application/json", json.dumps(content))

    def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing, since requests come every two seconds."""
