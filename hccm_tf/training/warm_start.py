"""Warm starts: today's model begins with the weights of yesterday's run.

| weight | begins as |
|---|---|
| embedding table of a feature | old rows, by the ids' keys; new ids as initialised |
| category priors | old rows, by the categories' keys; new ones as initialised |
| any other, moving averages included | the old weight |

The reserved rows, padding and out-of-vocabulary, are copied. With `"all_but_ids"` the
features' embedding tables begin anew, all rows of them; T. Ge et al. (Image Matters,
CIKM '18) found that best. They call every sparse feature an id; that the category
priors, a part of the image encoder, do not count as ids is our choice.

With `"all"` the vocabularies keep the old ids beside today's: one day does not show all
that a model knows. Float features and feature maps stay standardised as they were, for
the weights know no other scale. The optimizer's state is not taken over.
"""

import dataclasses
import itertools
import json
import pathlib

import keras
import numpy as np

from hccm_tf.atomic import new_file
from hccm_tf.data.feature_kinds import RESERVED
from hccm_tf.data.schema import Schema
from hccm_tf.errors import InputError
from hccm_tf.files import join, open_file

WARM_STARTS = ("all", "all_but_ids")
MODEL = "model.keras"
SCHEMA = "schema"
# Of the feature maps or pixels that the model takes: `cnn`, null without any, and how
# the channels are standardised.
MAPS = "feature_maps.json"
CHANNELS = ("channel_mean", "channel_std")
TABLE = "embeddings"  # Keras' name of an embedding layer's weight


def save_run(run_dir, model, schema, feature_maps=None):
    """Writes what a warm start needs: the model, its schema, its fixed CNN.

    Args:
        run_dir: folder.
        model: of `hccm_tf.models.build_model`.
        schema: `Schema` of the model.
        feature_maps: its `FeatureMapStore` or `ImageFolder`, `None` without one.
    """
    run_dir = pathlib.Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    with new_file(run_dir / MODEL) as temporary:
        # Keras looks at how the name ends.
        whole = temporary.with_suffix(".keras")
        model.save(whole)
        # Where the model is, there is what belongs to it.
        (run_dir / MODEL).unlink(missing_ok=True)
        (run_dir / SCHEMA).mkdir(exist_ok=True)
        schema.save(run_dir / SCHEMA)
        content = {"cnn": feature_maps and feature_maps.cnn}
        for name in CHANNELS:
            values = getattr(feature_maps, name, None)
            content[name] = None if values is None else values.tolist()
        (run_dir / MAPS).write_text(json.dumps(content) + "\n")
        whole.rename(temporary)


def started_schema(schema, run_dir, warm_start, trains=True):
    """The schema of a model that a run starts.

    Floats are standardised as in the run and, with `"all"`, its ids are kept.

    Args:
        schema: `Schema` of today's data.
        run_dir: folder of the run.
        warm_start: one of `WARM_STARTS`.
        trains: whether the model is trained further, and so learns how many of today's
            negatives are there; otherwise `unsampled` is that of the run.

    Raises:
        InputError: if the features are not those of the run.
    """
    if warm_start not in WARM_STARTS:
        raise InputError(
            f"--warm_start is one of {WARM_STARTS}. Received: {warm_start}"
        )
    old = Schema.load(join(run_dir, SCHEMA))
    for before, now in itertools.zip_longest(old.features, schema.features):
        if _kind(before) != _kind(now):
            raise InputError(
                f"--warm_start_from={run_dir}: its model has {_kind(before)} where "
                f"--data_dir has {_kind(now)}; build the examples with "
                f"--schema={join(run_dir, SCHEMA, 'schema.json')}"
            )
    scales = {f.name: {"mean": f.mean, "std": f.std} for f in old.features}
    features = tuple(
        dataclasses.replace(f, **scales[f.name]) if f.is_float else f
        for f in schema.features
    )
    rate = schema.negative_keep_rate if trains else old.negative_keep_rate
    schema = dataclasses.replace(schema, features=features, negative_keep_rate=rate)
    if warm_start == "all_but_ids":
        return schema
    vocabularies = {
        name: np.union1d(keys, old.vocabularies[name])
        for name, keys in schema.vocabularies.items()
    }
    features = tuple(
        dataclasses.replace(f, size=len(vocabularies[f.name]))
        if f.name in vocabularies
        else f
        for f in schema.features
    )
    return dataclasses.replace(schema, features=features, vocabularies=vocabularies)


def _kind(feature):
    """What of a feature the weights depend on, in words."""
    if feature is None:
        return "no feature"
    words = [f"feature {feature.name} of kind {feature.kind} ({feature.dtype})"]
    if feature.needs_size:
        words.append(f"of size {feature.size}")
    if feature.candidate:
        words.append("of the candidate")
    return " ".join(words)


def started_maps(feature_maps, run_dir):
    """Feature maps, or pixels, as the model of a run takes them.

    Args:
        feature_maps: today's `FeatureMapStore` or `ImageFolder`; `None` for a model
            without images.
        run_dir: folder of the run.

    Returns:
        The same; a store's channels are standardised as in the run.

    Raises:
        InputError: if the run's model takes those of another fixed CNN; names what
            differs.
    """
    path = join(run_dir, MAPS)
    try:
        with open_file(path) as handle:
            content = json.load(handle)
        old, channels = content["cnn"] or {}, {n: content[n] for n in CHANNELS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}); train again") from error
    cnn = {} if feature_maps is None else feature_maps.cnn
    for name in sorted({*old, *cnn}):
        if old.get(name) != cnn.get(name):
            raise InputError(
                f"--feature_maps, or --image_size of cscnn: the {name} is "
                f"{cnn.get(name)}, that of --warm_start_from={run_dir} was "
                f"{old.get(name)}; take the maps, or the size, of that run"
            )
    if channels["channel_mean"] is None:
        return feature_maps
    metadata = {**feature_maps.metadata, **channels}
    return dataclasses.replace(feature_maps, metadata=metadata)


def warm_start(model, schema, run_dir, how):
    """Gives a new model the weights of a run.

    Args:
        model: of `hccm_tf.models.build_model`, built of `schema`.
        schema: of `started_schema`.
        run_dir: folder of the run.
        how: one of `WARM_STARTS`.

    Raises:
        InputError: if the run is of another model or other widths; names the weight.
    """
    old_model, old_schema = _load(run_dir), Schema.load(join(run_dir, SCHEMA))
    if old_model.name != model.name:
        raise InputError(
            f"--warm_start_from={run_dir} holds a model {old_model.name}. Received: "
            f"--model={model.name}"
        )
    weights, old_weights = _weights(model), _weights(old_model)
    for place in sorted({*weights, *old_weights}):
        weight, old = weights.get(place), old_weights.get(place)
        feature = _feature(place, weight, schema)
        if feature != _feature(place, old, old_schema):
            feature = None  # its number of rows only looks like a feature's
        if feature is None:
            fits = _shape(weight) == _shape(old)
        else:
            fits = _shape(weight)[1:] == _shape(old)[1:]
        if not fits:
            path = (old if weight is None else weight).path
            raise InputError(
                f"--warm_start_from={run_dir}: weight {path} has shape {_shape(old)} "
                f"there. Received: {_shape(weight)}; give the model's flags as in "
                "that run"
            )
        if feature is None:
            weight.assign(old)
        elif how == "all" or not _is_feature_table(place, feature):
            values = keras.ops.convert_to_numpy(weight).copy()
            rows, old_rows = _common_rows(feature, schema, old_schema)
            values[rows] = keras.ops.convert_to_numpy(old)[old_rows]
            weight.assign(values)


def _weights(model):
    """Weights by their layer's name and their place in it."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found |= _weights(layer)
        else:
            found |= {(layer.name, i): w for i, w in enumerate(layer.weights)}
    return found


def _shape(weight):
    return None if weight is None else tuple(weight.shape)


def _feature(place, weight, schema):
    """Name of the feature whose indices count a weight's rows, or `None`."""
    if weight is None or weight.name != TABLE:
        return None
    for feature in schema.scalars:
        if _is_feature_table(place, feature.name):
            return feature.name
    # Other tables are of categories, as `CategoryPrior` is.
    if "category" in schema and weight.shape[0] == schema.num_rows("category"):
        return "category"
    return None


def _is_feature_table(place, feature):
    return place[0] == f"{feature}_embedding"


def _common_rows(feature, schema, old_schema):
    """Rows of a feature's table, and the old rows of the same keys."""
    if not schema[feature].has_vocabulary:
        rows = np.arange(schema.num_rows(feature))
        return rows, rows
    _, rows, old_rows = np.intersect1d(
        schema.vocabularies[feature],
        old_schema.vocabularies[feature],
        assume_unique=True,
        return_indices=True,
    )
    reserved = np.arange(RESERVED)
    return tuple(np.concatenate([reserved, r + RESERVED]) for r in (rows, old_rows))


def _load(run_dir):
    path = pathlib.Path(run_dir) / MODEL
    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"--warm_start_from={run_dir}: {path} is no trained model ({reason})"
        ) from error
