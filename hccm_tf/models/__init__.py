"""CTR models as Keras graphs. Only `backbones` reads files: weights.

| name | image branch |
|---|---|
| `base` | none; embeddings + MLP, history mean-pooled |
| `din` | none; DIN attention over the item history |
| `din_fixed_cnn` | pooled feature maps → trainable Dense, or frozen PCA (two-stage) |
| `hcm` | trainable CNN on the feature maps |
| `late_fusion` | the same CNN, its output joined with the category's embedding |
| `hccm` | trainable CNN with category prior and channel attention |
| `cscnn` | a whole trainable CNN with category attention on the candidate's pixels |

All see the same non-visual features, so a difference is the image branch. `trees` is no
network: boosted trees on hand-made features, the bar that the others are held to.
"""

import importlib
import operator

from hccm_tf.models.base import Base
from hccm_tf.models.cscnn import CSCNN
from hccm_tf.models.din import DIN
from hccm_tf.models.din_fixed_cnn import DINFixedCNN
from hccm_tf.models.hccm import HCCM
from hccm_tf.models.hcm import HCM
from hccm_tf.models.image_model import ImageModel
from hccm_tf.models.late_fusion import LateFusion
from hccm_tf.models.model import ImageInput, Model
from hccm_tf.models.trees import Trees

__all__ = [
    "CHOICES",
    "MODELS",
    "ImageInput",
    "ImageModel",
    "Model",
    "Trees",
    "build_model",
    "find_model",
    "name_of",
]

_CLASSES = (Base, DIN, DINFixedCNN, HCM, LateFusion, HCCM, CSCNN)
MODELS = {model.name: model for model in _CLASSES}
# What a run can be of.
CHOICES = {**MODELS, Trees.name: Trees}


def find_model(name):
    """The class of a model.

    Args:
        name: one of `CHOICES`, or `"my_package.my_module:MyModel"`, a subclass of
            `Model` or `ImageModel` that Python finds.

    Raises:
        ValueError: if there is none.
    """
    if name in CHOICES:
        return CHOICES[name]
    module, separator, attribute = str(name).partition(":")
    if not separator:
        raise ValueError(
            f"model is one of {', '.join(CHOICES)}, or my_package.my_module:MyModel. "
            f"Received: {name}"
        )
    try:
        model = operator.attrgetter(attribute)(importlib.import_module(module))
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"model {name}: {error}") from error
    if not (isinstance(model, type) and issubclass(model, Model) and model.name):
        raise ValueError(
            f"model {name}: a subclass of hccm_tf.models.Model with a name. Received: "
            f"{model!r}"
        )
    return model


def name_of(model):
    """The name by which `find_model` finds a class."""
    if CHOICES.get(model.name) is model:
        return model.name
    return f"{model.__module__}:{model.__qualname__}"


def build_model(
    name,
    schema,
    feature_map_shape=None,
    channel_mean=None,
    channel_std=None,
    pca=None,
    embedding_shards=1,
    **options,
):
    """Builds a model of the table above.

    Args:
        name: see `find_model`.
        schema: `hccm_tf.data.Schema`.
        feature_map_shape: `(h, w, c)` of a feature map, or of an image's pixels; for
            models with images.
        channel_mean: see `ImageInput`, as the next two.
        channel_std: likewise.
        pca: likewise.
        embedding_shards: see `hccm_tf.models.model.Model`.
        **options: the options of the model's class, see its `Options`.

    Returns:
        `keras.Model` from the dict of tensors that `hccm_tf.data` makes to the click
        probabilities `[R, N, 1]` of R requests' candidates. With `ensemble_size=K` they
        are `[R, N, K]` in training, for `hccm_tf.models.ensemble.EnsembleLoss`.

    Raises:
        ValueError: if the name or an option's value is unknown, or it is no network's.
        TypeError: if the model does not read an option.

    Example:
    ```python
    model = build_model("hccm", schema, feature_map_shape=(5, 5, 96))
    ```

    References:
    - X. Chen et al., Hybrid CNN Based Attention with Category Prior for User Image
      Behavior Modeling, SIGIR '22.
    """
    model = find_model(name)
    if model is Trees:
        raise ValueError(f"model {name} is no network: train_main.py trains it")
    options = model.Options.of(options, f"model {name}")
    images = None
    if model.has_images and feature_map_shape is not None:
        images = ImageInput(feature_map_shape, channel_mean, channel_std, pca)
    return model(schema, options, images, embedding_shards).build()
