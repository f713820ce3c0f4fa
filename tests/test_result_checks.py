import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hccm_tf.configuration import configure
from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError
from hccm_tf.flags.groups import ResultOptions
from hccm_tf.result_checks import check_results


def test_photos_at_urls_need_no_folder(shop, tmp_path):
    data = shutil.copytree(shop.data, tmp_path / "data")
    results, folders = ResultOptions(explain=3), {"feature_maps": str(shop.maps)}
    configuration = configure("hcm", {}, data_dir=str(data), **folders)
    with pytest.raises(InputError, match="^image_dir: the folder of images such as"):
        check_results(configuration, results)
    file = DataFolder(data).catalogue_file
    table = pq.read_table(file)
    urls = pa.array(
        name and f"https://example.com/{name}" for name in table["image"].to_pylist()
    )
    place = table.column_names.index("image")
    pq.write_table(table.set_column(place, "image", urls), file)
    check_results(configuration, results)
