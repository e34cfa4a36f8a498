"""The live page, as a browser gets it: over HTTP, while another process could write the store."""

import json
import shutil
import threading
import urllib.error
import urllib.request

import pytest

from tsjax.report.live import LiveServer
from tsjax.sweep.store import StoreError


@pytest.fixture
def store(make_toy, tmp_path):
    """A store of many chunks, and its chunks in a folder from which they come one by one."""
    make_toy(out=tmp_path / "s", chunk=8, commit_seconds=0.0)
    (tmp_path / "s" / "chunks").rename(tmp_path / "chunks")
    (tmp_path / "s" / "chunks").mkdir()
    return tmp_path / "s"


@pytest.fixture
def server(store):
    with LiveServer(store) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _ask(server, path, host=None):
    """The code and the text of an answer."""
    request = urllib.request.Request(server.url + path, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def _get(server, path, host=None):
    code, text = _ask(server, path, host)
    assert code == 200, text
    return text


@pytest.mark.slow
def test_the_page_follows_the_store(server, store, tmp_path):
    page = _get(server, "")
    # The claim of the toy is a script, which must be text.
    assert 'src="/report"' in page and "A &lt;script&gt;alert(" in page and page.count("<script") == 1
    assert "No records yet" in _get(server, "report")
    status = json.loads(_get(server, "status.json"))
    assert status["done"] == 0 and not status["complete"] and status["sentence"].startswith(f"0 of {status['cells']}")
    chunks = sorted((tmp_path / "chunks").iterdir())
    versions, done = {status["version"]}, 0
    for part in (chunks[: len(chunks) // 2], chunks[len(chunks) // 2 :]):
        for chunk in part:
            shutil.move(chunk, store / "chunks")
        status = json.loads(_get(server, "status.json"))
        assert status["version"] not in versions and status["done"] > done
        versions, done = versions | {status["version"]}, status["done"]
        report = _get(server, "report")
        assert (f"{done} of {status['cells']} cells" in report) and "plotly" in report.lower()
    assert status["complete"] and status["sentence"].endswith("complete.")
    # Made once for each version.
    assert server.report() is server.report()


def test_only_this_machine_may_ask(server):
    for path, host, code in (("", "evil.example", 403), ("sweep.json", None, 404), ("../sweep.json", None, 404)):
        assert _ask(server, path, host)[0] == code
    assert server.url.startswith("http://127.0.0.1:") and server.server_address[0] == "127.0.0.1"
    assert _get(server, "status.json", "localhost:80")


@pytest.mark.slow
def test_a_store_that_goes_away_is_said_to(server, store, tmp_path):
    store.rename(tmp_path / "moved")
    code, text = _ask(server, "status.json")
    assert code == 503 and "there is no directory" in text
    (tmp_path / "moved").rename(store)
    assert json.loads(_get(server, "status.json"))["cells"]


def test_no_store(tmp_path):
    with pytest.raises(StoreError, match="is not a tsjax store"):
        LiveServer(tmp_path)


def test_show(toy_result, capsys, monkeypatch):
    toy_result.show()
    assert "Exponents of" in capsys.readouterr().out
    shown = []
    monkeypatch.setattr("tsjax.report.live.is_notebook", lambda: True)
    display = pytest.importorskip("IPython.display")
    monkeypatch.setattr(display, "display", lambda page: shown.append(page.data))
    toy_result.show(height=500)
    assert "height:500px" in shown[0] and "srcdoc=" in shown[0] and "<script" not in shown[0]
