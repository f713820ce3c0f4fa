import pandas as pd
import pytest

from hccm_tf.data.catalogue import read_catalogue
from hccm_tf.errors import InputError


def test_catalogue(shop):
    items = read_catalogue(shop.data)["item_id"].to_pylist()
    assert items == shop.items.item_id.tolist()


def test_without_a_column(tmp_path):
    pd.DataFrame({"item_id": [1]}).to_parquet(tmp_path / "catalogue.parquet")
    with pytest.raises(InputError, match="catalogue.parquet.*image"):
        read_catalogue(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"item_id,image\n"])
def test_missing_or_damaged(tmp_path, content):
    if content is not None:
        (tmp_path / "catalogue.parquet").write_bytes(content)
    with pytest.raises(InputError, match="catalogue.parquet.*build the examples again"):
        read_catalogue(tmp_path)
