"""Items in TensorBoard's projector: what a model knows of them, with their photos."""

import math
import shutil

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorboard.plugins import projector

from hccm_tf.atomic import new_folder
from hccm_tf.data.catalogue import image_categories
from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError
from hccm_tf.explanation.pictures import say_unread
from hccm_tf.images.read import decode_images
from hccm_tf.models.ensemble import rankers_of
from hccm_tf.models.non_visual import embedding_name
from hccm_tf.serving.representations import encode

SIZE = 64  # pixels, height and width of a photo
GREY = 231  # where there is no photo
METADATA, SPRITE = "metadata.tsv", "photos.png"


def write_projector(folder, trained, batches, image_dir, count):
    """Writes what TensorBoard's projector shows of the items most shown in training.

    The folder gets a table with a row for each item of each of: the vectors that the
    model makes of photos under their category, `photos`, and its embeddings of ids,
    `item_id`, those of an ensemble side by side, as far as it has them; the items' ids,
    categories and impressions; their photos; and the projector's configuration. Of a
    model that sees photos there are no items without one.

    Args:
        folder: `pathlib.Path` to write; an older one is replaced.
        trained: `hccm_tf.runs.TrainedModel`.
        batches: `Batches` of a data folder, whose catalogue has the items.
        image_dir: folder of the images; `None` for items without their photos.
        count: number of items at most, up to 128².

    Raises:
        InputError: if the model has no vectors of items, or was not told the truth.
    """
    if trained.configuration.settings.is_control:
        raise InputError("projector: it would show what a control's model was not told")
    items, impressions, rows = _most_shown(trained, batches, count)
    vectors = _vectors(trained, batches, items, rows)
    if not vectors:
        raise InputError(
            f"projector: model {trained.name} sees no photos and has no embedding of "
            "item_id"
        )
    shutil.rmtree(folder, ignore_errors=True)
    with new_folder(folder) as temporary:
        _write_metadata(temporary / METADATA, items, impressions)
        for name, values in vectors.items():
            np.savetxt(temporary / f"{name}.tsv", values, "%.6g", "\t")
        if image_dir is not None:
            names = items["image"].to_pylist()
            allowed = trained.configuration.settings.allowed
            photos = decode_images(names, image_dir, SIZE, **allowed)
            sprite, reasons = _sprite(photos, names)
            Image.fromarray(sprite).save(temporary / SPRITE)
            say_unread(reasons, len({*names} - {""}))
        _write_configuration(temporary, vectors, image_dir is not None)
        # TensorBoard looks for a configuration only where it finds an event.
        with tf.summary.create_file_writer(str(temporary)).as_default():
            tf.summary.text("items", f"{len(items)} items in the projector", step=0)


def _write_configuration(folder, names, with_photos):
    config = projector.ProjectorConfig()
    for name in names:
        entry = config.embeddings.add()
        entry.tensor_name, entry.tensor_path = name, f"{name}.tsv"
        entry.metadata_path = METADATA
        if with_photos:
            entry.sprite.image_path = SPRITE
            entry.sprite.single_image_dim.extend([SIZE, SIZE])
    projector.visualize_embeddings(str(folder), config)


def _most_shown(trained, batches, count):
    """Items of the catalogue, how often training showed each, and rows of their photos.

    Returns:
        `(items, impressions, rows)`: Arrow table; int `[N]`, `None` if it was not
        counted; int64 `[N]`, as `ImageStore.find`, `None` for a model without images.
    """
    items, rows = DataFolder(batches.data_dir).catalogue(), None
    impressions = _impressions(trained.schema, items["item_id"].to_numpy())
    chosen = np.arange(len(items))
    if batches.images is not None:
        rows = batches.images.find(items["image_key"].to_numpy()).numpy()
        chosen = np.flatnonzero(rows)
        if not len(chosen):
            raise InputError(
                f"projector: the model sees none of {len(items)} items' images; take "
                "the photos of this catalogue"
            )
    if impressions is not None:
        chosen = chosen[np.argsort(-impressions[chosen], kind="stable")]
    chosen = chosen[:count]
    of_chosen = (None if a is None else a[chosen] for a in (impressions, rows))
    return items.take(chosen), *of_chosen


def _impressions(schema, item_ids):
    """How often training showed items, int `[N]`; `None` if it was not counted."""
    counts = schema.counts.get("item_id")
    if counts is None:
        return None
    index = schema.index("item_id", tf.constant(item_ids)).numpy()
    # Padding and unknown ids come first.
    return np.pad(counts, (schema.num_rows("item_id") - len(counts), 0))[index]


def _vectors(trained, batches, items, rows):
    """Name → vectors `[N, ·]` of items; arguments as `_most_shown` returns them."""
    vectors, schema = {}, trained.schema
    if rows is not None:
        encoder = trained.keras_model.get_layer("image_encoder")

        def vectors_of(maps, category):
            return encoder({"image_map": maps, "image_category": category})

        _, category = image_categories(schema, items)
        found, _ = encode(vectors_of, batches.images, rows, category, "float32")
        vectors["photos"] = found[1:]
    if "item_id" in schema and schema["item_id"].is_embedded:
        ranker = trained.definition.ranker_of(trained.keras_model)
        name = embedding_name(schema["item_id"])
        tables = [one.get_layer(name) for one in rankers_of(ranker)]
        ids = schema.index("item_id", tf.constant(items["item_id"].to_numpy()))
        vectors["item_id"] = tf.concat(
            [table(ids) for table in tables], axis=-1
        ).numpy()
    return vectors


def _write_metadata(path, items, impressions):
    columns = {name: items[name].to_pylist() for name in ("item_id", "category")}
    if impressions is not None:
        columns["impressions"] = impressions.tolist()
    lines = ["\t".join(columns)]
    for row in zip(*columns.values(), strict=True):
        # A tab would be another column.
        lines.append("\t".join(" ".join(str(value).split()) for value in row))
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _sprite(decoded, names):
    """The photos in rows of one picture; what cannot be read is grey.

    Args:
        decoded: of `decode_images`.
        names: list of their names, empty for none.

    Returns:
        `(picture, reasons)`: uint8; dict from the name of a photo to why it cannot be
        read.
    """
    width = math.ceil(math.sqrt(len(names)))
    height, reasons = math.ceil(len(names) / width), {}
    sprite = np.full((height, SIZE, width, SIZE, 3), GREY, np.uint8)
    for place, (pixels, reason) in enumerate(decoded):
        if pixels is not None:
            sprite[place // width, :, place % width] = pixels
        elif names[place]:
            reasons[names[place]] = reason
    return sprite.reshape(height * SIZE, width * SIZE, 3), reasons
