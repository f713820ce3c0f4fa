"""CTR models as Keras graphs; pure graph building, no input or output.

| name | image branch |
|---|---|
| `base` | none; embeddings + MLP, history mean-pooled |
| `din` | none; DIN attention over the item history |
| `din_fixed_cnn` | pooled feature maps → trainable Dense, or frozen PCA (two-stage) |
| `hcm` | trainable CNN on the feature maps |
| `late_fusion` | the same CNN, its output joined with the category's embedding |
| `hccm` | trainable CNN with category prior and channel attention |
| `cscnn` | a whole trainable CNN with category attention on the candidate's pixels |

All see the same non-visual features, so a difference is the image branch.
"""

import keras

from hccm_tf.models import base, cscnn, din, din_fixed_cnn, hccm, hcm, late_fusion
from hccm_tf.models.image_encoder import join
from hccm_tf.models.layer_pool import LayerPool
from hccm_tf.models.options import ModelOptions

_MODULES = {
    module.__name__.rsplit(".", 1)[-1]: module
    for module in (base, din, din_fixed_cnn, hcm, late_fusion, hccm, cscnn)
}
MODELS = tuple(_MODULES)
IMAGE_MODELS = tuple(
    name for name in MODELS if hasattr(_MODULES[name], "build_image_encoder")
)
# Of these, the models that take images themselves and not feature maps.
PIXEL_MODELS = ("cscnn",)


def build_model(name, schema, **options):
    """Builds a model of the table above.

    Args:
        name: one of `MODELS`.
        schema: `hccm_tf.data.schema.Schema`.
        **options: see `ModelOptions`.

    Returns:
        `keras.Model` from the dict of tensors that `hccm_tf.data.dataset` makes to
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
    if name not in MODELS:
        raise ValueError(f"model is one of {MODELS}. Received: {name}")
    options = ModelOptions(**options)
    layers = LayerPool()
    if name not in IMAGE_MODELS:
        return _MODULES[name].build_ranker(schema, options, layers)
    if options.feature_map_shape is None:
        raise ValueError(f"model {name} needs feature_map_shape. Received: None")
    encoder = _MODULES[name].build_image_encoder(schema, options, layers)
    return join(name, encoder, _MODULES[name].build_ranker(schema, options, layers))


def uses_category(name, **options):
    """Whether what a model's image encoder gives depends on the category.

    Args:
        name: one of `IMAGE_MODELS`.
        **options: see `ModelOptions`.
    """
    module = _MODULES[name]
    return hasattr(module, "uses_category") and module.uses_category(
        ModelOptions(**options)
    )


def build_form(form, model, schema, **options):
    """Another graph over the weights of a model.

    Args:
        form: `"rank"`, the ranker whose rows are requests with N candidates;
            `"explain"`, the ranker to its attentions' weights; or `"encode_images"`,
            the image encoder, to its channel attention too where there is one.
        model: of `build_model`.
        schema: as there.
        **options: as there.

    Returns:
        `keras.Model`, see `hccm_tf.models.ranker` and `hccm_tf.models.image_encoder`.
    """
    options = ModelOptions(**options)
    parts = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    layers = LayerPool(model, *parts)
    module = _MODULES[model.name]
    if form == "encode_images":
        return module.build_image_encoder(schema, options, layers, explain=True)
    return module.build_ranker(
        schema,
        options,
        layers,
        many_candidates=form == "rank",
        explain=form == "explain",
    )
