"""Rate of `extract_feature_maps` against its two parts, one after the other.

    python benchmarks/feature_extraction.py --json=FILE

Makes JPEGs of 500 to 600 pixels (smooth colours, shapes, sensor noise; quality 85). In
each round, one after the other,
- decode: all images with `decode_image` in a pool of one thread a core, pixels thrown
  away, files in the page cache;
- model: bare MobileNetV3Small, cut after its default layer, at 224 pixels, on the
  same number of images, in float32 batches of 64 that are ready in memory, TensorFlow
  using all cores, results thrown away; once called as a Keras model, `model(x)`, and
  once as the `tf.function` of it;
- extraction: the whole of `extract_feature_maps`, from the names to the finished store,
  with the construction of the CNN, Beam, float16, checksums and writing.
The floor is 1 / (decode time per image + model time per image) of the round, with the
faster form of the model. Extraction can be above the floor, because it decodes the next
batches while the CNN runs. The last row is the median of each column.
"""

import concurrent.futures
import os
import pathlib
import tempfile

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from absl import app, flags
from PIL import Image, ImageDraw
from timing import seconds

from hccm_tf.images.read import decode_image
from hccm_tf.models.backbones import load_backbone
from hccm_tf.preparation.feature_maps.extract import extract_feature_maps
from hccm_tf.preparation.feature_maps.fixed_cnn import estimate_normalization
from hccm_tf.preparation.feature_maps.settings import DEFAULTS
from hccm_tf.preparation.feature_maps.shards import BATCH_SIZE

BACKBONE, SIZE = DEFAULTS["backbone"], DEFAULTS["image_size"]


def make_photo(path, seed):
    """Writes one synthetic photo."""
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(500, 601, 2).tolist())
    colours = rng.integers(0, 256, (6, 6, 3), np.uint8)
    image = Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for shape in (draw.ellipse, draw.rectangle) * 5:
        x, y, width, height = rng.integers(20, 300, 4).tolist()
        fill = tuple(rng.integers(0, 256, 3).tolist())
        shape((x, y, x + width, y + height), fill=fill)
    noise = rng.normal(0, 6, (*size[::-1], 3))
    pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=85)


def decode_all(names, folder):
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(names), 512):
            part = names[start : start + 512]
            results = pool.map(lambda name: decode_image(name, folder, SIZE), part)
            if any(reason for _, reason in results):
                raise RuntimeError("a photo cannot be decoded")


def read_batch(names, folder):
    pixels = [decode_image(name, folder, SIZE)[0] for name in names[:BATCH_SIZE]]
    return np.stack(pixels).astype(np.float32)


def run_model(call, batch, count):
    for _ in range(count // len(batch)):
        call(batch)


def measure(folder, names, weights, round_number):
    """One round, a row of the table: images per second."""
    batch = tf.constant(read_batch(names, folder))
    keras.backend.clear_session()
    model = load_backbone(BACKBONE, str(weights), SIZE)
    graph = tf.function(lambda x: model(x, training=False))
    calls = {"model(x)": lambda x: model(x, training=False), "tf.function": graph}
    row = {"decode": len(names) / seconds(lambda: decode_all(names, folder))}
    count = len(names) // BATCH_SIZE * BATCH_SIZE
    for name, call in calls.items():
        call(batch)
        row[name] = count / seconds(lambda call=call: run_model(call, batch, count))
    output = folder.parent / f"maps-{round_number}"
    duration = seconds(
        lambda: extract_feature_maps(names, folder, output, weights=str(weights))
    )
    row["floor"] = 1 / (1 / row["decode"] + 1 / max(row[name] for name in calls))
    row["extraction"] = len(names) / duration
    row["of the floor"] = row["extraction"] / row["floor"]
    return row


def main(argv):
    del argv
    with tempfile.TemporaryDirectory() as folder:
        photos = pathlib.Path(folder) / "photos"
        photos.mkdir()
        names = [f"{number:05d}.jpg" for number in range(FLAGS.images)]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(make_photo, [photos / n for n in names], range(len(names))))
        weights = FLAGS.weights
        if weights is None:
            weights = pathlib.Path(folder) / "random.weights.h5"
            model = getattr(keras.applications, BACKBONE)(
                input_shape=(SIZE, SIZE, 3), include_top=False, weights=None
            )
            # Without it all maps are nearly 0, and such numbers are slow to convert.
            estimate_normalization(model, read_batch(names, photos))
            model.save_weights(weights)
        table = pd.DataFrame(
            [measure(photos, names, weights, number) for number in range(FLAGS.rounds)]
        )
    table.index = table.index.map("round {}".format)
    table.loc["median"] = table.median()
    print(f"images/s, {len(names)} images, {os.cpu_count()} cores")
    print(table.round(3).to_string())
    if FLAGS.json:
        pathlib.Path(FLAGS.json).write_text(table.to_json(orient="index", indent=2))


FLAGS = flags.FLAGS

if __name__ == "__main__":
    flags.DEFINE_integer("images", 5_000, "Number of photos.", lower_bound=64)
    flags.DEFINE_integer("rounds", 3, "Number of alternations.", lower_bound=1)
    flags.DEFINE_string("weights", None, "A file; default: random weights.")
    flags.DEFINE_string("json", None, "File for the table.")
    app.run(main)
