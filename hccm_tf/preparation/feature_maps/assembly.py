"""Puts the shards of a run, and of the store that it extends, together."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hccm_tf import formats
from hccm_tf.atomic import new_file
from hccm_tf.data.feature_maps import IMAGES, METADATA, SKIPPED, shard_files
from hccm_tf.errors import InputError
from hccm_tf.preparation.feature_maps.shards import NAMES, REPORT, shard_folder


def link_or_copy(source, target):
    """Makes `target` the file `source`, as a link where the disk can do that."""
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        with new_file(target) as copy:
            shutil.copyfile(source, copy)


def _move(source, target):
    # A run that was interrupted here has moved some files already.
    if not target.exists():
        source.replace(target)


def _read_reports(work):
    """Reports of a run's shards, and `(place, reason)` of what the run skipped."""
    names = pq.read_metadata(work / NAMES)
    reports, skipped, start = [], [], 0
    for shard in range(names.num_row_groups):
        path = shard_folder(work, shard) / REPORT
        reports.append(json.loads(path.read_text()))
        skipped += [(start + place, why) for place, why in reports[-1]["skipped"]]
        start += names.row_group(shard).num_rows
    return reports, skipped


def _place_shards(folder, work, old, reports, dtype, shape):
    """Gives all shards their names; returns their rows and the files' CRC-32."""
    shards = []
    if old is not None:
        for rows, files in zip(old.metadata["shard_rows"], old.shards, strict=True):
            crc32 = [old.metadata["crc32"][file.name] for file in files]
            shards.append((rows, list(files), crc32, link_or_copy))
    for made, report in enumerate(reports):
        folder_made = shard_folder(work, made)
        files = [folder_made / str(array) for array in range(len(report["crc32"]))]
        if report["rows"]:
            shards.append((report["rows"], files, report["crc32"], _move))
    checksums = {}
    for shard, (rows, sources, crc32, place) in enumerate(shards):
        names = shard_files(dtype, shape, rows, shard, len(shards))
        for name, source, value in zip(names, sources, crc32, strict=True):
            place(source, folder / name)
            checksums[name] = value
    return [rows for rows, *_ in shards], checksums


def assemble(folder, work, old, images, keys, order, metadata):
    """Makes a store of the shards of a run that has ended.

    Args:
        folder: the store's folder, with the weights.
        work: folder of the run.
        old: `FeatureMapStore` that the run extends, or `None`.
        images: object array of all names: the old store's, then those of the run.
        keys: int64, sorted keys of `images`.
        order: int64, the order of `images` that sorts them.
        metadata: dict of what the run was told, with `dtype` and `shape`.

    Returns:
        Number of feature maps and of images skipped.

    Raises:
        InputError: if there is no feature map.
    """
    reports, skipped = _read_reports(work)
    new = np.ones(len(images) - (0 if old is None else len(old.rows)), bool)
    new[[place for place, _ in skipped]] = False
    skipped = pd.DataFrame(skipped, columns=["image", "reason"])
    skipped["image"] = images[len(images) - len(new) :][~new]
    count = len(images) - len(skipped)
    if not count:
        # Nothing here is worth going on with.
        shutil.rmtree(folder)
        folder.mkdir()
        raise InputError(
            f"none of {len(images)} images is readable; the first: "
            f"{skipped.iloc[0].tolist() if len(skipped) else None}"
        )
    dtype, shape = metadata["dtype"], metadata["shape"]
    shard_rows, crc32 = _place_shards(folder, work, old, reports, dtype, shape)
    rows = _rows(old, new, sum(shard_rows))[order]
    table = {"image": images[order], "key": keys, "row": rows}
    table = {name: column[rows >= 0] for name, column in table.items()}
    pq.write_table(pa.table(table), folder / IMAGES)
    skipped.to_csv(folder / SKIPPED, index=False)
    metadata = {
        "format": formats.MAPS,
        **metadata,
        "count": count,
        "shard_rows": shard_rows,
        "crc32": crc32,
        **_moments(old, reports, count * shape[0] * shape[1]),
    }
    (folder / METADATA).write_text(json.dumps(metadata, indent=2) + "\n")
    return count, len(skipped)


def _rows(old, new, total):
    """Each image's row among `total`, −1 without a map; int64, old images first."""
    added = np.full(len(new), -1)
    added[new] = total - new.sum() + np.arange(new.sum())
    return added if old is None else np.concatenate([old.rows, added])


def _moments(old, reports, positions):
    """Moments, mean and standard deviation of each channel; dict of lists."""
    moments = sum(np.asarray(report["moments"]) for report in reports)
    if old is not None:
        moments = moments + np.asarray(old.metadata["moments"])
    mean, mean_square = moments / positions
    return {
        "moments": moments.tolist(),
        "channel_mean": mean.tolist(),
        "channel_std": np.sqrt(np.maximum(mean_square - mean**2, 1e-12)).tolist(),
    }
