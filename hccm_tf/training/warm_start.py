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
that a model knows. The optimizer's state is not taken over.
"""

import dataclasses
import itertools
import json
import pathlib

import keras
import numpy as np

from hccm_tf.atomic import new_file
from hccm_tf.errors import InputError
from hccm_tf.features import RESERVED, Schema
from hccm_tf.files import join, open_file

WARM_STARTS = ("all", "all_but_ids")
MODEL = "model.keras"
SCHEMA = "schema"
# `cnn` of the feature maps or pixels that the model takes, null without any.
CNN = "feature_maps.json"
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
        cnn = None if feature_maps is None else feature_maps.cnn
        (run_dir / CNN).write_text(json.dumps(cnn) + "\n")
        whole.rename(temporary)


def started_schema(schema, run_dir, warm_start):
    """The schema of a model that a run starts: with `"all"`, its ids are kept.

    Args:
        schema: `Schema` of today's data.
        run_dir: folder of the run.
        warm_start: one of `WARM_STARTS`.

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
    if feature.kind in ("hash", "integer"):
        words.append(f"of size {feature.size}")
    if feature.candidate:
        words.append("of the candidate")
    return " ".join(words)


def warm_start(model, schema, run_dir, how, feature_maps=None):
    """Gives a new model the weights of a run.

    Args:
        model: of `hccm_tf.models.build_model`, built of `schema`.
        schema: of `started_schema`.
        run_dir: folder of the run.
        how: one of `WARM_STARTS`.
        feature_maps: as of `save_run`.

    Raises:
        InputError: if the run is of another model, other widths or another fixed CNN;
            names the weight or flag.
    """
    _check_cnn(run_dir, feature_maps)
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
    if schema[feature].kind != "vocabulary":
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


def _check_cnn(run_dir, feature_maps):
    """Raises unless the maps or pixels are as the run's were."""
    path = join(run_dir, CNN)
    try:
        with open_file(path) as handle:
            old = json.load(handle) or {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); train again") from error
    cnn = {} if feature_maps is None else feature_maps.cnn
    for name in sorted({*old, *cnn}):
        if old.get(name) != cnn.get(name):
            raise InputError(
                f"--feature_maps, or --image_size of cscnn: the {name} is "
                f"{cnn.get(name)}, that of --warm_start_from={run_dir} was "
                f"{old.get(name)}; take the maps, or the size, of that run"
            )
