"""What a model predicts of some impressions, and the attentions behind it."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from hccm_tf.data.feature import HISTORY, HISTORY_IMAGE
from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError
from hccm_tf.serving.request import Impressions

OTHER_CATEGORIES = 3


@dataclasses.dataclass(frozen=True)
class Explained:
    """One impression.

    Args:
        row: column → list of raw values, of a history those that the model sees.
        label: int.
        ctr: the click probability.
        attention: name → weights `[T]` of the clicks, oldest first; of an ensemble,
            their mean.
        channels: category → weights `[c]` of the candidate's channels, were it of that
            category; its own comes first. `None` without an image, or if the model has
            no channel attention that sees the category.
        feature_map: `[h, w, c]` of the candidate, `None` with `channels`.
    """

    row: dict
    label: int
    ctr: float
    attention: dict
    channels: dict | None = None
    feature_map: np.ndarray | None = None

    def images(self):
        """Names of the candidate's and the history's images."""
        names = [*self.row["image"], *self.row[HISTORY_IMAGE]]
        return [text(name) for name in names if name]


def text(value):
    """A raw value as people read it."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def explain(trained, batches, count):
    """Explains the first impressions of the test split.

    Args:
        trained: `hccm_tf.runs.TrainedModel`.
        batches: `Batches` of the data folder.
        count: number of impressions.

    Returns:
        list of `Explained`.

    Raises:
        InputError: if the model has no attention, or was not told the truth.
    """
    if trained.configuration.settings.is_control:
        raise InputError("explain: it would show what a control's model was not told")
    schema, data_dir = trained.schema, batches.data_dir
    forms = trained.definition.forms(trained.keras_model)
    if "explain" not in forms:
        raise InputError(f"explain: model {trained.name} has no attention to show")
    found = Impressions(data_dir, "test", count)
    inputs, labels = _first_requests(batches, len(found.requests))
    ctr = trained.keras_model.predict_on_batch(inputs)
    mask = inputs["candidate_mask"]
    labels, ctr = labels[mask][:, 0], schema.unsampled(ctr[mask][:, 0])
    inputs = _by_impression(inputs, forms["explain"].input, mask)
    attention = _attention(trained, forms["explain"], inputs)
    encoder, categories = None, ()
    if trained.definition.has_images and trained.definition.uses_category:
        encoder = forms["encode_images"]
        categories = _frequent_categories(data_dir)
    explained = []
    for i, row in enumerate(found.rows):
        for name in row:
            if name.startswith(HISTORY):
                row[name] = row[name][-schema.max_history :]
        clicks = len(row[HISTORY_IMAGE])
        explained.append(
            Explained(
                row,
                int(labels[i]),
                float(ctr[i]),
                {name: weights[i, :clicks] for name, weights in attention.items()},
                **_channels(encoder, schema, inputs, i, row, categories),
            )
        )
    return explained


def _first_requests(batches, count):
    """Inputs and labels of a batch of the first test requests, dict and array."""
    folder = batches.folder
    impressions = folder.num_impressions("test") / folder.num_requests("test")
    batches = dataclasses.replace(batches, batch_size=math.ceil(count * impressions))
    inputs, labels, *_ = next(iter(batches.dataset("test")))
    return {name: value.numpy() for name, value in inputs.items()}, labels.numpy()


def _by_impression(inputs, spec, mask):
    """Inputs of requests as those of impressions.

    Args:
        inputs: name → array.
        spec: name → input of a graph of impressions; others stay as they are.
        mask: bool `[R, N]`, where there is a candidate.
    """
    request, result = np.nonzero(mask)[0], dict(inputs)
    for name in spec.keys() & inputs.keys():
        of_candidate = inputs[name].ndim > len(spec[name].shape)
        result[name] = inputs[name][mask if of_candidate else request]
    return result


def _attention(trained, form, inputs):
    """Weights `[B, T]` of each attention."""
    if trained.definition.has_images:
        encoder = trained.keras_model.get_layer("image_encoder")
        vectors = encoder.predict_on_batch(
            {name: inputs[name] for name in encoder.input}
        )
        for name in trained.definition.sides:
            vectors_of = np.take(vectors, inputs[f"{name}_image"], axis=0)
            inputs[f"{name}_representation"] = vectors_of
    return form.predict_on_batch({name: inputs[name] for name in form.input})


def _frequent_categories(data_dir):
    """Categories of the catalogue, those of many items first."""
    return DataFolder(data_dir).catalogue()["category"].to_pandas().value_counts().index


def _channels(encoder, schema, inputs, i, row, categories):
    """`channels` and `feature_map` of `Explained`, as far as there are any."""
    outputs = encoder.output if encoder is not None else None
    if not isinstance(outputs, dict) or "channel_attention" not in outputs:
        return {}
    # A model of the history's images does not see the candidate's.
    image = int(inputs["candidate_image"][i]) if "candidate_image" in inputs else 0
    if not image:
        return {}
    own = row["category"][0]
    others = [name for name in categories if text(name) != text(own)]
    names = [own, *others[:OTHER_CATEGORIES]]
    feature_map = inputs["image_map"][image]
    outputs = encoder.predict_on_batch(
        {
            "image_map": tf.stack([feature_map] * len(names)),
            "image_category": schema.index("category", tf.constant(names)),
        }
    )
    weights = outputs["channel_attention"]
    return {
        "channels": dict(zip(map(text, names), weights, strict=True)),
        "feature_map": np.float32(feature_map),
    }
