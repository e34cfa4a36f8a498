import struct
import sys

import pytest

from tsjax.report.tensorboard import tensorboard_scalars


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


def test_scalars_of_a_sweep(make_toy, tmp_path):
    result = make_toy(chunk=4, listener=tensorboard_scalars(tmp_path / "events"))
    scalars = _scalars(tmp_path / "events")
    records = result.records
    done = [step for tag, step, _ in scalars if tag == "sweep/failed"]
    assert done == sorted(done) and done[-1] == len(records)
    # Chunks are of equal size, so that the mean of their means is the mean of the records.
    for method, group in records.groupby("method"):
        means = [value for tag, _, value in scalars if tag == f"risk/{method}"]
        assert sum(means) / len(means) == pytest.approx(group["risk"].mean(), rel=1e-5)


def test_what_was_found_in_the_store_is_no_point(make_toy, tmp_path):
    make_toy(out=tmp_path / "store")
    make_toy(out=tmp_path / "store", listener=tensorboard_scalars(tmp_path / "events"))
    assert _scalars(tmp_path / "events") == []


def test_without_tensorboardx(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tsjax\[tensorboard\]'"):
        tensorboard_scalars(tmp_path)
