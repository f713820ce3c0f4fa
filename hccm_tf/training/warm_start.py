"""Warm starts: today's model begins with the weights of yesterday's run.

| weight | begins as |
|---|---|
| embedding table of a feature | old rows, by the ids' keys; new ids as initialised |
| category priors | old rows, by the categories' keys; new ones as initialised |
| dropout rate of an id | by how often the run and today have seen it, see `IdDropout` |
| any other, moving averages included | the old weight |

The reserved rows, padding and out-of-vocabulary, are copied. With `"all_but_ids"` the
features' embedding tables begin anew, all rows of them; T. Ge et al. (Image Matters,
CIKM '18) found that best. They call every sparse feature an id; that the category
priors, a part of the image encoder, do not count as ids is our choice.

With `"shrink"` every trained weight begins as a fifth of the old one and four fifths of
a new one, embeddings included. It is for data that hold the run's days once more, whose
ids and their counts are all that there are: trained on such data from the old weights,
a model is worse on new data than one that begins anew (J. Ash and R. Adams, On
Warm-Starting Neural Network Training, NeurIPS 2020). How much is kept is our choice.

With `"all"` the vocabularies keep the old ids beside today's: one day does not show all
that a model knows. Float features and feature maps stay standardised as they were, for
the weights know no other scale. The optimizer's state is not taken over.
"""

import dataclasses
import itertools

import keras
import numpy as np

from hccm_tf.data.feature_kinds import RESERVED
from hccm_tf.errors import InputError
from hccm_tf.models.non_visual import embedding_name

WARM_STARTS = ("all", "all_but_ids", "shrink")
KEPT = 0.2  # of a trained weight, with "shrink"
TABLE = "embeddings"  # Keras' name of an embedding layer's weight
RATES = "rates"  # of `IdDropout`, which follow from the schema


def check_same_features(schema, old):
    """Raises an `InputError` if a run's model takes other features than the data have.

    Args:
        schema: `Schema` of today's data.
        old: `Schema` of the run.
    """
    for before, now in itertools.zip_longest(old.features, schema.features):
        if _kind(before) != _kind(now):
            raise InputError(
                f"warm_start_from: the run's model has {_kind(before)} where the data "
                f"have {_kind(now)}; build the examples with the run's schema.json as "
                "their schema"
            )


def check_same_model(model, started):
    """Raises an `InputError` if a run's model is of another class.

    Args:
        model: subclass of `hccm_tf.models.Model`.
        started: `TrainedModel` of the run.
    """
    if started.configuration.model is not model:
        raise InputError(
            f"warm_start_from: it holds a model {started.name}. Received: model "
            f"{model.name}"
        )


def check_not_changed(configuration, started):
    """Raises an `InputError` if a run's model is to be another without training."""
    was = {
        **vars(started.configuration.options),
        "max_history": started.schema.max_history,
        "warm_start": "all",
    }
    asked = {**vars(configuration.options), "warm_start": configuration.warm_start}
    if configuration.settings.max_history is not None:
        asked["max_history"] = configuration.settings.max_history
    for name, value in asked.items():
        if value != was[name]:
            raise InputError(
                f"{name}: without training, the model is that of the run, whose {name} "
                f"is {was[name]}. Received: {value}"
            )


def started_schema(schema, old, how):
    """The schema of a model that a run starts.

    Floats are standardised as in the run and, with `"all"`, its ids are kept.

    Args:
        schema: `Schema` of today's data.
        old: `Schema` of the run, of the same features.
        how: one of `WARM_STARTS`.

    Raises:
        InputError: if `how` is none of them.
    """
    if how not in WARM_STARTS:
        raise InputError(f"warm_start: one of {WARM_STARTS}. Received: {how}")
    scales = {f.name: {"mean": f.mean, "std": f.std} for f in old.features}
    features = tuple(
        dataclasses.replace(f, **scales[f.name]) if f.is_float else f
        for f in schema.features
    )
    schema = dataclasses.replace(schema, features=features)
    if how != "all":
        return schema
    known = {name: _union(old, schema, name) for name in schema.vocabularies}
    vocabularies = {name: keys for name, (keys, _) in known.items()}
    checks = {name: found for name, (_, found) in known.items() if found is not None}
    counts = {
        name: _sum_counts(old, schema, name, vocabularies[name])
        for name in schema.counts
    }
    features = tuple(
        dataclasses.replace(f, size=len(vocabularies[f.name]))
        if f.name in vocabularies
        else f
        for f in schema.features
    )
    return dataclasses.replace(
        schema,
        features=features,
        vocabularies=vocabularies,
        checks=checks,
        counts=counts,
    )


def _union(old, schema, name):
    """Keys and checks of both vocabularies; of ids of one key the run's has it."""
    keys = np.concatenate([s.vocabularies[name] for s in (old, schema)])
    keys, first = np.unique(keys, return_index=True)
    if not (name in old.checks and name in schema.checks):
        return keys, None
    checks = np.concatenate([s.checks[name] for s in (old, schema)])
    return keys, checks[first]


def _sum_counts(old, schema, name, keys):
    """How often each of both vocabularies' keys was seen, by the run and today."""
    counts = np.zeros(len(keys), np.int64)
    for part in (old, schema):
        place = np.searchsorted(keys, part.vocabularies[name])
        counts[place] += part.counts.get(name, 0)
    return counts


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


def warm_start(model, started, how):
    """Gives a new model the weights of a run.

    Args:
        model: `TrainedModel` with new weights, of a schema of `started_schema`.
        started: `TrainedModel` of the run.
        how: one of `WARM_STARTS`.

    Raises:
        InputError: if the run is of another model or other widths; names the weight.
    """
    check_same_model(model.configuration.model, started)
    weights, old_weights = _weights(model.keras_model), _weights(started.keras_model)
    for place in sorted({*weights, *old_weights}):
        weight, old = weights.get(place), old_weights.get(place)
        feature = _feature(place, weight, model.schema)
        if feature != _feature(place, old, started.schema):
            feature = None  # its number of rows only looks like a feature's
        if feature is None:
            fits = _shape(weight) == _shape(old)
        else:
            fits = _shape(weight)[1:] == _shape(old)[1:]
        if not fits:
            path = (old if weight is None else weight).path
            raise InputError(
                f"warm_start_from: weight {path} has shape {_shape(old)} there. "
                f"Received: {_shape(weight)}; give the model's options as in that run"
            )
        begin = _shrunk if how == "shrink" and weight.trainable else _kept
        if feature is None:
            weight.assign(begin(old, weight))
        elif how != "all_but_ids" or place[0] != embedding_name(model.schema[feature]):
            values = keras.ops.convert_to_numpy(weight).copy()
            rows, old_rows = _common_rows(feature, model.schema, started.schema)
            old = keras.ops.convert_to_numpy(old)[old_rows]
            values[rows] = begin(old, values[rows])
            weight.assign(values)


def _kept(old, new):
    del new
    return old


def _shrunk(old, new):
    return KEPT * old + (1 - KEPT) * new


def _weights(model, parts=()):
    """Weights by their layer's name, its parts' and the place, those not of the schema.

    Args:
        model: `keras.Model`.
        parts: tuple, the names of the `keras.Model`s that it is in, and its own.
    """
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found |= _weights(layer, (*parts, layer.name))
        else:
            weights = enumerate(layer.weights)
            found |= {(layer.name, parts, i): w for i, w in weights if w.name != RATES}
    return found


def _shape(weight):
    return None if weight is None else tuple(weight.shape)


def _feature(place, weight, schema):
    """Name of the feature whose indices count a weight's rows, or `None`."""
    if weight is None or weight.name != TABLE:
        return None
    for feature in schema.scalars:
        if place[0] == embedding_name(feature):
            return feature.name
    # Other tables are of categories, as `CategoryPrior` is.
    if "category" in schema and weight.shape[0] == schema.num_rows("category"):
        return "category"
    return None


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
    if feature in schema.checks and feature in old_schema.checks:
        same = old_schema.checks[feature][old_rows] == schema.checks[feature][rows]
        rows, old_rows = rows[same], old_rows[same]
    reserved = np.arange(RESERVED)
    return tuple(np.concatenate([reserved, r + RESERVED]) for r in (rows, old_rows))
