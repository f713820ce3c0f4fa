"""CTR models as Keras graphs; pure graph building, no input or output.

| name | image branch |
|---|---|
| `base` | none; embeddings + MLP, history mean-pooled |
| `din` | none; DIN attention over the item history |
| `din_fixed_cnn` | pooled feature maps → trainable Dense (two-stage) |
| `hcm` | trainable CNN on the feature maps |
| `hccm` | trainable CNN with category prior and channel attention |

All see the same non-visual features, so a difference is the image branch.
"""

from hccm_tf.models import base, din, din_fixed_cnn, hccm, hcm
from hccm_tf.models.options import ModelOptions

_BUILDERS = {
    module.__name__.rsplit(".", 1)[-1]: module.build
    for module in (base, din, din_fixed_cnn, hcm, hccm)
}
MODELS = tuple(_BUILDERS)
IMAGE_MODELS = ("din_fixed_cnn", "hcm", "hccm")


def build_model(name, schema, **options):
    """Builds a model of the table above.

    Args:
        name: one of `MODELS`.
        schema: `hccm_tf.features.Schema`.
        **options: see `ModelOptions`.

    Returns:
        `keras.Model` from the dict of tensors that `hccm_tf.data.pipeline` makes to
        the click probability, `[B, 1]`.

    Raises:
        ValueError: if the name or an option's value is unknown.

    Example:
    ```python
    model = build_model("hccm", schema, feature_map_shape=(5, 5, 96))
    ```

    References:
    - X. Chen et al., Hybrid CNN Based Attention with Category Prior for User Image
      Behavior Modeling, SIGIR '22.
    """
    if name not in _BUILDERS:
        raise ValueError(f"model is one of {MODELS}. Received: {name}")
    options = ModelOptions(**options)
    if name in IMAGE_MODELS and options.feature_map_shape is None:
        raise ValueError(f"model {name} needs feature_map_shape. Received: None")
    return _BUILDERS[name](schema, options)
