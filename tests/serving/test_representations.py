import numpy as np
import pytest

from hccm_tf.data.folder import DataFolder
from hccm_tf.errors import InputError
from hccm_tf.serving.export import item_table_of
from hccm_tf.serving.representations import encode_catalogue, quantize_rows
from hccm_tf.serving.request import Impressions
from hccm_tf.serving.signatures import Signatures


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_representations_that_do_not_fit_are_an_error(dtype):
    vectors = np.ones((3, 4), np.float32)
    vectors[1, 2] = np.nan if dtype == "int8" else 1e5
    with pytest.raises(InputError, match="too large for"):
        quantize_rows(vectors, dtype)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_small_tables_answer_almost_the_same(fitted, shop, dtype):
    model = fitted["hccm"].model_
    catalogue = DataFolder(shop.data).catalogue()
    category = shop.schema.index("category", catalogue["category"].to_numpy())
    table = encode_catalogue(
        model.get_layer("image_encoder"),
        shop.store,
        catalogue["image_key"].to_numpy(),
        category.numpy(),
        dtype,
    )
    assert table.representation_vectors.dtype == dtype
    examples = np.array(Impressions(shop.data, "test", 500).examples, object)
    trained = fitted["hccm"].fitted_.trained
    forms, items = trained.definition.forms(model), item_table_of(trained, shop.data)
    signatures = Signatures(trained.definition, forms, table, items)
    found = signatures.serve_examples(examples)["ctr"]
    expected = fitted["hccm"].predict_proba(shop.data)[: len(examples), 1]
    difference = np.abs(found - expected).max()
    assert 0 < difference < {"float16": 1e-3, "int8": 1e-2}[dtype]
