"""Trackers, by what their own packages read back."""

import json
import struct
import sys

import pytest

import tsjax as ts
from tsjax.report.trackers import AbstractTracker, JsonLines, MLflow, TensorBoard, WandB, tracker_of


def _scalars(folder):
    """(tag, step, value) of every event, by the record format alone: length, checksum, bytes, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            content = content[16 + length :]
    return found


def _joined(content, block=32768, head=7):
    """The records of a file of wandb, which cuts them where a block of its log ends: checksum, length, kind, bytes."""
    at, found = head, b""
    while at + head <= len(content):
        (length,) = struct.unpack("<H", content[at + 4 : at + 6])
        found += content[at + head : at + head + length]
        at += head + length
        left = block - at % block
        at += left if left < head else 0
    return found


def _means(points, records):
    """Chunks are of equal size, so that the mean of their means is the mean of the records."""
    for method, group in records.groupby("method"):
        means = [point[f"risk/{method}"] for point in points if f"risk/{method}" in point]
        assert sum(means) / len(means) == pytest.approx(group["risk"].mean(), rel=1e-5)


def _tracked(make_toy, tracker, **options):
    from tsjax.sweep.run import tracking

    with tracking([tracker]) as (listener, finish):
        return finish(make_toy(listener=listener, **options))


def test_scalars_in_tensorboard(make_toy, tmp_path):
    result = _tracked(make_toy, TensorBoard(tmp_path / "events"), chunk=4)
    scalars = _scalars(tmp_path / "events")
    done = [step for tag, step, _ in scalars if tag == "sweep/failed"]
    assert done == sorted(done) and done[-1] == len(result.records)
    _means([{tag: value} for tag, _, value in scalars], result.records)
    (row,) = [row for row in result.rates().to_dict("records") if row["curve"] == "ridge"]
    assert row["label"] == "ridge [with brackets]"
    for tag, name in (("rate", "exponent"), ("rate_low", "low"), ("rate_high", "high")):
        (found,) = [value for other, _, value in scalars if other == f"{tag}/ridge_with_brackets"]
        assert found == pytest.approx(row[name], rel=1e-5)


def test_json_lines(make_toy, tmp_path):
    path = tmp_path / "new" / "events.jsonl"
    result = _tracked(make_toy, JsonLines(path), chunk=4)
    events = [json.loads(line) for line in path.read_text().splitlines()]
    kinds = [event.pop("event") for event in events]
    assert kinds[0] == "plan" and kinds[-3:] == ["chunk", "result", "end"] and set(kinds[1:-2]) == {"chunk"}
    assert int(events[0]["cells"]) == len(result.records) and events[-1] == {"finished": True}
    _means(events[1:-2], result.records)
    assert [row["exponent"] for row in events[-2]["rates"]] == result.rates()["exponent"].tolist()
    assert [row["outcome"] for row in events[-2]["verdicts"]] == [str(one.outcome) for one in result.verdicts()]


def test_what_was_found_in_the_store_is_no_point(make_toy, tmp_path):
    make_toy(out=tmp_path / "store")
    _tracked(make_toy, JsonLines(tmp_path / "events.jsonl"), out=tmp_path / "store")
    kinds = [json.loads(line)["event"] for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    # The summary of rates is a point, too.
    assert kinds == ["plan", "chunk", "result", "end"]


def test_a_sweep_that_stops_is_said_to_have_stopped(tmp_path):
    @ts.experiment(static=("n",))
    def spoilt(key, *, n: int):
        raise ValueError("spoilt")

    for track in (JsonLines(tmp_path / "a.jsonl"), [JsonLines(tmp_path / "a.jsonl")]):
        with pytest.raises(Exception, match="spoilt"):
            ts.sweep(spoilt, n=[8, 16], seeds=2, track=track)
    ends = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [event["finished"] for event in ends if event["event"] == "end"] == [False, False]
    # What is wrong before the start leaves nothing.
    with pytest.raises(ValueError, match="seeds"):
        ts.sweep(spoilt, n=[8], seeds=0, track=JsonLines(tmp_path / "b.jsonl"))
    assert not (tmp_path / "b.jsonl").exists()


def test_trackers_by_name(tmp_path):
    assert isinstance(tracker_of(f"tensorboard:{tmp_path}"), TensorBoard)
    assert isinstance(tracker_of(f"jsonl:{tmp_path}/x:y.jsonl"), JsonLines)
    with pytest.raises(ValueError, match="there is no tracker 'tensorbord'. Did you mean 'tensorboard'?"):
        tracker_of("tensorbord:events")
    with pytest.raises(ValueError, match="say where, jsonl:PLACE"):
        tracker_of("jsonl")


@pytest.mark.parametrize(
    ("name", "kind", "extra"),
    [("tensorboardX", TensorBoard, "tensorboard"), ("mlflow", MLflow, "mlflow"), ("wandb", WandB, "wandb")],
)
def test_without_its_package(monkeypatch, name, kind, extra):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'tsjax\[{extra}\]'"):
        kind("somewhere")


@pytest.mark.slow
def test_mlflow(make_toy, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    # A database would need sqlalchemy, which mlflow-skinny does without.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"file:{tmp_path}/runs"
    result = _tracked(make_toy, MLflow(uri), chunk=4)
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(f"tsjax/{result.experiment.name}")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and int(run.data.params["cells"]) == len(result.records)
    points = client.get_metric_history(run.info.run_id, "risk/ridge")
    _means([{"risk/ridge": point.value} for point in points], result.records.query("method == 'ridge'"))
    assert {"result.json", "rates.md"} <= {file.path for file in client.list_artifacts(run.info.run_id)}


@pytest.mark.slow
def test_wandb_offline(make_toy, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    result = _tracked(make_toy, WandB("tests"), chunk=4)
    (log,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    content = _joined(log.read_bytes())
    assert len(result.records) and all(tag in content for tag in (b"risk/ridge", b"rate/", b"sweep/failed"))


def test_a_tracker_of_ones_own(make_toy):
    seen = []

    class Own(AbstractTracker):
        def begin(self, facts):
            seen.append(facts["study"])

        def scalars(self, values, step):
            seen.append(step)

        def results(self, rates, verdicts, table, step):
            seen.append(table)

        def close(self, finished):
            seen.append(finished)

    result = _tracked(make_toy, Own(), chunk=4)
    assert seen[0] == result.experiment.name and seen[-1] is True and "exponent" in seen[-2]
