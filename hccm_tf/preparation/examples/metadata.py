"""The files with which tensorflow-datasets opens a data folder."""

import numpy as np
from etils import epy

from hccm_tf.preparation.examples.write import scalar_dtypes, sequence_dtypes

with epy.lazy_imports():
    import tensorflow_datasets as tfds


def write_metadata(job, schema, shards):
    """Writes `features.json` and `dataset_info.json`.

    Args:
        job: `Job`.
        schema: `Schema` as it was fitted.
        shards: of `written_shards`.
    """
    types = {"int64": np.int64, "float32": np.float32, "string": np.str_}
    features = {
        name: tfds.features.Scalar(types[dtype])
        for name, dtype in scalar_dtypes(job, schema).items()
    }
    for name, dtype in sequence_dtypes(schema).items():
        features[name] = tfds.features.Tensor(shape=(None,), dtype=types[dtype])
    tfds.folder_dataset.write_metadata(
        data_dir=job.output,
        features=tfds.features.FeaturesDict(features),
        split_infos=[
            tfds.core.SplitInfo(
                name=name,
                shard_lengths=[rows for rows, _ in sizes],
                num_bytes=sum(size for _, size in sizes),
            )
            for name, sizes in shards.items()
        ],
        check_data=False,
        description="Impressions with the user's newest "
        f"{schema.max_history} clicks before.",
    )
