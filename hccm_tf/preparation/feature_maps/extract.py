"""Runs the fixed CNN over every image of a catalogue, once (HCCM, Eq. 6-7)."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hccm_tf.atomic import new_folder
from hccm_tf.data import ids
from hccm_tf.data.feature_maps import IMAGES, SKIPPED, FeatureMapStore
from hccm_tf.files import resolve
from hccm_tf.images.places import check_image_dir
from hccm_tf.images.read import MAX_PIXELS
from hccm_tf.preparation.feature_maps import own_cnn
from hccm_tf.preparation.feature_maps.assembly import assemble
from hccm_tf.preparation.feature_maps.settings import (
    CnnOptions,
    cnn_settings,
    prepare,
)
from hccm_tf.preparation.feature_maps.shards import (
    NAMES,
    Encoding,
    shard_folder,
    write_shard,
)
from hccm_tf.preparation.image_names import distinct_images
from hccm_tf.preparation.steps import Step, run_steps
from hccm_tf.preparation.tables import read_table


def extract_feature_maps(
    images,
    image_dir,
    output_dir,
    max_pixels=MAX_PIXELS,
    extend=None,
    beam_args=(),
    allow_links=False,
    allow_private_urls=False,
    **options,
):
    """Writes the feature-map store of `hccm_tf.data.feature_maps`.

    Args:
        images: distinct image names, paths relative to `image_dir` or URLs.
        image_dir: folder of the images; `None` if all of them are URLs.
        output_dir: folder to write.
        max_pixels: an image with more pixels is skipped.
        extend: folder of an old store whose maps the new one takes over, or `None`.
        beam_args: Apache Beam's options, list of str.
        allow_links: see `hccm_tf.images.places.image_content`, as the next.
        allow_private_urls: whether images may be at addresses that are not public.
        **options: fields of `hccm_tf.preparation.feature_maps.settings.CnnOptions`.

    Raises:
        InputError: if a setting is wrong or no image is readable.
    """
    check_image_dir(images, image_dir)
    old = None if extend is None else FeatureMapStore.open(extend)
    cnn = cnn_settings(CnnOptions(**options), old)
    own_file = _own_file(options.get("backbone"))
    settings = {
        **cnn,
        "images_sha256": hashlib.sha256("\0".join(images).encode()).hexdigest(),
        "image_dir": image_dir and resolve(image_dir),
        "backbone_file": own_file,
        "backbone_sha256": own_file and own_cnn.digest(own_file),
        "max_pixels": max_pixels,
        "allow_links": allow_links,
        "allow_private_urls": allow_private_urls,
        "extend": old and hashlib.sha256(json.dumps(old.metadata).encode()).hexdigest(),
    }
    images, names, keys, order = new_images(images, old)
    with new_folder(output_dir, resume=True) as folder:
        work = folder / "work"
        made = prepare(folder, work, settings, old, images)
        _encode(work, settings | made, beam_args)
        metadata = {**cnn, "images_sha256": settings["images_sha256"], **made}
        count, skipped = assemble(folder, work, old, names, keys, order, metadata)
    shutil.rmtree(pathlib.Path(output_dir) / "work")
    shape = tuple(metadata["shape"])
    why = f", see {pathlib.Path(output_dir, SKIPPED)}" if skipped else ""
    print(
        f"{count} feature maps {shape}, {skipped} images skipped{why} -> {output_dir}"
    )


def _own_file(backbone):
    is_own = own_cnn.is_own(backbone)
    return str(pathlib.Path(backbone).resolve()) if is_own else None


def new_images(images, old):
    """What an old store lacks of `images`, and all names, its own first.

    Of names of one key only one is there, and a warning is printed; an old store keeps
    what it has.

    Returns:
        `(new, names, keys, order)`: object arrays, and the sorted keys of `names` with
        the order that sorts them.
    """
    images, known = np.asarray(images, object), np.zeros(0, object)
    if old is not None:
        known = pq.read_table(old.path / IMAGES)["image"].to_numpy()
        is_new = ~pc.is_in(pa.array(images), pa.array(known)).to_numpy(False)
        images = images[is_new]
    names = np.concatenate([known, images])
    counts = np.repeat([2, 1], [len(known), len(images)])
    keys, order, collisions = ids.distinct_keys(names, counts)
    for line in ids.describe_collisions("images", collisions, "no image"):
        print(line)
    kept = np.zeros(len(names), bool)
    kept[order] = True
    places = np.cumsum(kept) - 1
    return images[kept[len(known) :]], names[kept], keys, places[order]


def _encode(work, settings, beam_args):
    """Writes the shards of a run, each from one row group of names."""
    fields = dataclasses.fields(Encoding)
    told = {"work": work.resolve(), **settings}
    encoding = Encoding(**{field.name: told[field.name] for field in fields})
    names = pq.read_metadata(work / NAMES)
    count = names.num_row_groups
    left = sum(
        names.row_group(shard).num_rows
        for shard in range(count)
        if not shard_folder(work, shard).exists()
    )
    if count:
        # In one process: TensorFlow uses all cores.
        encode = functools.partial(write_shard, encoding)
        step = Step(encode, count, ("encoding", left, "photo"))
        run_steps([step], work, beam_args)


def read_images(items):
    """The distinct image names of a catalogue, in its order; list of str.

    Of names of one key that of the most items is there, and a warning is printed.

    Args:
        items: path of the catalogue, CSV or Parquet.
    """
    table = read_table(items, ["item_id", "image"], strings=["image"])
    names, _, warnings = distinct_images(table["image"])
    for line in warnings:
        print(line)
    return names.to_pylist()
