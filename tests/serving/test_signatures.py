"""The signatures of an export against the estimator, NumPy and each other."""

import numpy as np
import pytest
import tensorflow as tf

from hccm_tf.data import ids
from hccm_tf.serving.request import impressions_request, rank_request
from tests.serving.asking import ALL, ROWS, ask, cut, one_row_each


def test_names(served):
    _, signatures, _, with_images = served
    names = ALL if with_images else ALL - {"encode_images", "image_keys"}
    assert set(signatures) == names


def test_examples_give_the_models_answers(served, shop):
    estimator, signatures, impressions, _ = served
    expected = estimator.predict_proba(shop.data)[:ROWS, 1]
    examples = np.array(impressions.examples, object)
    for name, given_as, answer in (
        ("serve_examples", "examples", "ctr"),
        ("regress", "inputs", "outputs"),
    ):
        found = ask(signatures[name], {given_as: examples})
        np.testing.assert_allclose(found[answer], expected, atol=1e-5)


def test_rank_equals_one_row_for_each_candidate(served, shop):
    _, signatures, impressions, with_images = served
    requests = cut(impressions.rows, (5, 1, 6))
    request = rank_request(requests, shop.schema, with_images)
    found = ask(signatures["rank"], request)["ctr"]
    plain = one_row_each(requests, shop.schema, with_images)
    expected = ask(signatures["serving_default"], plain)["ctr"]
    assert found.shape == (3, 6) and expected.std() > 1e-4
    mask = request["candidate_mask"]
    np.testing.assert_array_equal(mask.sum(axis=1), (5, 1, 6))
    np.testing.assert_allclose(found[mask], expected, atol=1e-6)
    assert (found[~mask] == 0).all()


def _pad(value, shape):
    value = np.asarray(value)
    padding = [(0, size - old) for size, old in zip(shape, value.shape, strict=True)]
    # As TensorFlow Serving pads when it merges requests: with the first value.
    first = value.flat[0] if value.size else np.zeros(1, value.dtype)[0]
    return np.pad(value, padding, constant_values=first)


def test_merged_requests_give_the_answers_of_each(served, shop):
    """Padded as server-side batching pads."""
    _, signatures, impressions, with_images = served
    parts = [impressions.rows[:3], impressions.rows[5:]]
    parts = [rank_request([rows], shop.schema, with_images) for rows in parts]
    merged = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        shape = np.max([value.shape for value in values], axis=0)
        merged[name] = np.concatenate([_pad(value, shape) for value in values])
    together = ask(signatures["rank"], merged)["ctr"]
    for row, part in enumerate(parts):
        alone = ask(signatures["rank"], part)["ctr"][0]
        np.testing.assert_allclose(together[row, : len(alone)], alone, atol=1e-6)


def test_masked_candidates_answer_0(served, shop):
    _, signatures, impressions, with_images = served
    request = rank_request([impressions.rows], shop.schema, with_images)
    before = ask(signatures["rank"], request)["ctr"]
    mask = np.arange(ROWS)[None] % 3 > 0
    after = ask(signatures["rank"], request | {"candidate_mask": mask})["ctr"]
    np.testing.assert_allclose(after, np.where(mask, before, 0), atol=1e-7)


def test_explain_gives_each_clicks_weight(served, shop):
    _, signatures, impressions, with_images = served
    request = impressions_request(impressions.rows, shop.schema, with_images)
    weights = ask(signatures["explain"], request)
    names = {"history_attention", "image_attention"}
    assert set(weights) == (names if with_images else {"history_attention"})
    beyond = np.arange(request["history_item_id"].shape[1])
    beyond = beyond >= request["history_length"][:, None]
    for value in weights.values():
        assert value.shape == beyond.shape
        assert (value[beyond] == 0).all() and (np.abs(value[~beyond]) > 0).mean() > 0.5


def test_encode_images_gives_the_tables_rows(served, shop):
    estimator, signatures, _, with_images = served
    if not with_images:
        pytest.skip("the model has no images")
    rows = shop.store.find(ids.image_keys(shop.items.image.to_numpy(object)))
    items = shop.items[rows.numpy() > 0].head(20)
    rows = shop.store.find(ids.image_keys(items.image.to_numpy(object)))
    maps = shop.store.gather(rows)
    found = ask(
        signatures["encode_images"],
        {"image_map": maps, "category": items.category.to_numpy(object)},
    )
    category = estimator.schema_.index("category", tf.constant(items.category))
    expected = estimator.model_.get_layer("image_encoder")(
        {"image_map": maps, "image_category": category}, training=False
    )
    np.testing.assert_allclose(found["representation"], expected, atol=1e-5)
    weights = found["channel_attention"]
    assert weights.shape == (20, maps.shape[-1])
    assert ((weights > 0) & (weights < 1)).all() and weights.std() > 0
    none = {"image_map": maps[:0], "category": np.zeros(0, object)}
    assert ask(signatures["encode_images"], none)["representation"].shape[0] == 0


@pytest.mark.parametrize("count", [0, 1])
def test_no_row_and_no_candidate(served, shop, count):
    _, signatures, impressions, with_images = served
    request = rank_request([impressions.rows[:2]], shop.schema, with_images)
    candidates = {name for name, value in request.items() if value.shape == (1, 2)}
    assert {"item_id", "candidate_mask"} <= candidates
    none = {
        name: value[:count, :0] if name in candidates else value[:count]
        for name, value in request.items()
    }
    assert ask(signatures["rank"], none)["ctr"].shape == (count, 0)
    request = impressions_request(impressions.rows, shop.schema, with_images)
    some = {name: value[:count] for name, value in request.items()}
    assert ask(signatures["serving_default"], some)["ctr"].shape == (count,)
    examples = np.array(impressions.examples[:count], object)
    found = ask(signatures["serve_examples"], {"examples": examples})["ctr"]
    assert found.shape == (count,)


def _bad_requests(request):
    """Requests whose sizes do not fit, with the inputs that the error names."""
    short = request | {"item_id": request["item_id"][:, :-1]}
    yield short, "item_id"
    yield request | {"user_id": np.repeat(request["user_id"], 2)}, "user_id"
    history = request["history_item_id"]
    wide = np.concatenate([history, history], axis=1)
    if "history_image" in request:
        yield request | {"history_item_id": wide}, "history_item_id"


def test_sizes_that_do_not_fit_name_the_input(served, shop):
    _, signatures, impressions, with_images = served
    request = rank_request([impressions.rows], shop.schema, with_images)
    for bad, name in _bad_requests(request):
        with pytest.raises(tf.errors.InvalidArgumentError, match=name):
            ask(signatures["rank"], bad)


def test_examples_that_are_none(served):
    _, signatures, impressions, _ = served
    example = tf.train.Example.FromString(impressions.examples[0])
    del example.features.feature["user_id"]
    without = np.array([example.SerializeToString()], object)
    for examples, error, message in (
        (np.array([b"no example"], object), tf.errors.DataLossError, "parse"),
        (without, tf.errors.InvalidArgumentError, "user_id"),
    ):
        with pytest.raises(error, match=message):
            ask(signatures["serve_examples"], {"examples": examples})


def test_a_history_that_is_too_long_is_cut(served, shop):
    _, signatures, impressions, with_images = served
    request = impressions_request(impressions.rows, shop.schema, with_images)
    longest = int(request["history_length"].max())
    rows = request["history_length"] == longest
    assert longest == shop.schema.max_history and rows.any()
    full = {name: value[rows] for name, value in request.items()}
    longer = {}
    for name, value in full.items():
        if value.ndim == 2:
            # Older clicks stand in front.
            longer[name] = np.concatenate([value[:, :5], value[:, :longest]], axis=1)
        else:
            longer[name] = value
    longer["history_length"] = full["history_length"] + 5
    np.testing.assert_allclose(
        ask(signatures["serving_default"], longer)["ctr"],
        ask(signatures["serving_default"], full)["ctr"],
        atol=1e-6,
    )
