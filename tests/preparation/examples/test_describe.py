import pandas as pd
import pytest
import tensorflow as tf

from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError
from hccm_tf.preparation.examples.describe import describe


def _blocks(lines):
    """The lines of each impression: before the history, and the clicks."""
    starts = [i for i, line in enumerate(lines) if not line.startswith(" ")]
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        block = lines[start + 1 : stop]
        history = next(i for i, line in enumerate(block) if "history" in line)
        yield block[:history], block[history + 1 :]


def _path(name):
    return f"photos/{name}" if name else "none"


def test_impressions_are_those_of_the_log(shop):
    lines = describe(shop.data, "train", 40, "photos")
    log = shop.log.fillna({"image": ""})
    blocks = list(_blocks(lines))
    assert len(blocks) == 40
    for fields, clicks in blocks:
        found = dict(line.split(maxsplit=1) for line in fields)
        time = pd.Timestamp(found["timestamp"].removesuffix(" UTC"), tz="UTC")
        same = (log.user_id == int(found["user_id"])) & (
            log.timestamp == time.timestamp()
        )
        (row,) = log[same & (log.item_id == int(found["item_id"]))].itertuples()
        assert found["category"] == row.category
        assert found["image"] == _path(row.image)
        assert found["label"] == str(row.label)
        assert found["hour"] == str(row.hour)
        assert float(found["price"]) == pytest.approx(row.price)
        assert clicks == [
            f"    item_id {click.item_id}, category {click.category}, "
            f"image {_path(click.image)}"
            for click in log.iloc[row.history].itertuples()
        ]
    assert any(clicks for _, clicks in blocks)
    assert any("image none" in click for _, clicks in blocks for click in clicks)


def test_what_cannot_be_read(shop, tmp_path):
    with pytest.raises(InputError, match="split dev"):
        describe(shop.data, "dev")
    for name in ("schema.json", "catalogue.parquet", "dataset_info.json"):
        (tmp_path / name).write_bytes((shop.data / name).read_bytes())
    (path,) = DataFolder(shop.data).files("test")
    content = tf.io.gfile.GFile(path, "rb").read()
    path = tmp_path / path.split("/")[-1]
    path.write_bytes(content[: len(content) // 2])
    assert describe(tmp_path, "test", 2) == describe(shop.data, "test", 2)
    with pytest.raises(InputError, match="of split test cannot be read"):
        describe(tmp_path, "test", 300)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="split test is empty"):
        describe(tmp_path, "test")
