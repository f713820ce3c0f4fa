"""The files with which tensorflow-datasets opens a data folder."""

import numpy as np
from etils import epy

from hccm_tf.preparation.examples.records import (
    candidate_dtypes,
    request_dtypes,
    sequence_dtypes,
)

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
        for name, dtype in request_dtypes(schema).items()
    }
    lists = candidate_dtypes(job, schema) | sequence_dtypes(schema)
    for name, dtype in lists.items():
        features[name] = tfds.features.Tensor(shape=(None,), dtype=types[dtype])
    tfds.folder_dataset.write_metadata(
        data_dir=job.output,
        features=tfds.features.FeaturesDict(features),
        split_infos=[
            tfds.core.SplitInfo(
                name=name,
                shard_lengths=[records for records, _, _ in sizes],
                num_bytes=sum(size for _, size, _ in sizes),
            )
            for name, sizes in shards.items()
        ],
        check_data=False,
        description="Requests, each the candidates that a user saw at one moment, "
        f"with the user's newest {schema.max_history} clicks before.",
    )
