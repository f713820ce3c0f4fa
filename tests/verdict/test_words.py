"""A verdict's words, of numbers made by hand."""

import copy

import pytest

from hccm_tf.configuration import configure
from hccm_tf.verdict.words import lines

GOOD = {
    "constant": {
        "click_rate": 0.352,
        "log_loss": 0.5825,
        "base_log_loss": 0.621,
        "gain": 0.0385,
        "interval": [0.0361, 0.041],
    },
    "popularity": {
        "impressions": 98_000,
        "auc": 0.7063,
        "base_auc": 0.5512,
        "gain": 0.1551,
        "interval": [0.14, 0.17],
    },
    "trees": {
        "similarity": "cosine",
        "impressions": 96_000,
        "auc": 0.7063,
        "base_auc": 0.6501,
        "gain": 0.0562,
        "interval": [0.05, 0.062],
    },
    "overfitting": {
        "impressions": 12_000,
        "auc": 0.73,
        "base_auc": 0.719,
        "gain": 0.011,
        "interval": [0.002, 0.02],
    },
    "kept_epoch": 3,
    "epochs": 5,
}
HCCM = configure("hccm", {}, data_dir="DATA")
PHOTOS = {"auc": 0.7063, "base_auc": 0.653, "gain": 0.0533, "interval": [0.04, 0.06]}


def changed(**groups):
    """`GOOD` with other values, by group; `None` leaves a group out."""
    figures = copy.deepcopy(GOOD)
    for name, values in groups.items():
        if isinstance(values, dict):
            figures[name] = {**figures.get(name, {}), **values}
        else:
            figures[name] = values
    return figures


def test_each_claim_has_its_numbers():
    assert lines(GOOD, HCCM) == [
        "Better than a constant: log loss 0.5825 against 0.6210 of always saying the "
        "click rate in training, 35.20% (lower by +0.0385, 95% +0.0361 to +0.0410).",
        "Better than popularity: AUC 0.7063 against 0.5512 of each item's click "
        "rate, smoothed, in 98,000 impressions of training (+0.1551, 95% +0.1400 to "
        "+0.1700).",
        "Better than boosted trees: AUC 0.7063 against 0.6501 of trees that count "
        "which clicks have what the item has and how like its photo is, from 96,000 "
        "impressions (+0.0562, 95% +0.0500 to +0.0620).",
        "It does not overfit: AUC 0.7300 on impressions that it was trained on, 0.7190 "
        "on validation (+0.0110, 95% +0.0020 to +0.0200); epoch 3 of 5 was kept.",
        "Next: --check_photos, which says whether the photos seem to pay.",
    ]


@pytest.mark.parametrize(
    ("groups", "line", "following"),
    [
        (
            {"constant": {"interval": [-0.1, 0.1]}},
            "Not shown to be better than a c",
            "learning_rate",
        ),
        (
            {"constant": {"interval": [-0.2, -0.1]}},
            "WORSE than a constant: ",
            "learning_",
        ),
        (
            {"popularity": {"interval": [-0.1, 0.1]}},
            "Not shown to be better than po",
            "validate",
        ),
        (
            {"popularity": {"interval": [-0.2, -0.1]}},
            "WORSE than popularity: ",
            "validate",
        ),
        (
            {"trees": {"interval": [-0.1, 0.1]}},
            "Not shown to be better than b",
            "--search",
        ),
        (
            {"trees": {"interval": [-0.2, -0.1]}},
            "WORSE than boosted trees: ",
            "--search",
        ),
        ({"overfitting": {"gain": 0.2}}, "It overfits: AUC", "--dropout"),
        (
            {"overfitting": {"gain": 0.04}},
            "It overfits a little: AUC",
            "--check_photos",
        ),
        (
            {"overfitting": {"gain": 0.2, "interval": [-0.1, 0.5]}},
            "It does not overfit",
            "--check_photos",
        ),
        ({"kept_epoch": 5}, "epoch 5 of 5 was kept", "more --epochs"),
        (
            {"kept_epoch": 5, "constant": {"interval": [-0.1, 0.1]}},
            "Not shown to be better than a constant",
            "more --epochs",
        ),
        (
            {
                "kept_epoch": 5,
                "overfitting": {"gain": 0.2},
                "popularity": {"interval": [-0.1, 0.1]},
            },
            "It overfits: AUC",
            "--dropout",
        ),
        (
            {"overfitting": None},
            "Of its epochs, epoch 3 of 5 was kept.",
            "--check_photos",
        ),
        (
            {"photos": PHOTOS},
            "Photos seem to pay: AUC 0.7063 against 0.6530 of",
            '--compare="din,hccm,hccm --shuffle_images"',
        ),
        (
            {"photos": {**PHOTOS, "interval": [-0.01, 0.06]}},
            "Photos are not shown to pay: ",
            "another CNN",
        ),
        (
            {"photos": {**PHOTOS, "interval": [-0.06, -0.01]}},
            "Photos seem to do HARM: ",
            "another CNN",
        ),
    ],
)
def test_what_is_said_of_other_numbers(groups, line, following):
    said = lines(changed(**groups), HCCM)
    assert any(line in each for each in said)
    assert said[-1].startswith("Next: ") and following in said[-1]
    assert 3 < len(said) < 7 and all(each.endswith(".") for each in said)


def test_a_model_without_photos():
    figures = changed(trees={"similarity": "none"})
    said = lines(figures, configure("din", {}, data_dir="DATA"))
    assert "what the item has, from 96,000 impressions" in said[2]
    assert said[-1] == "Next: --model=hccm with --feature_maps, which sees the photos."


def test_what_was_not_measured_is_not_said():
    figures = changed(constant=None, popularity=None, trees=None, overfitting=None)
    assert lines(figures, HCCM) == [
        "Of its epochs, epoch 3 of 5 was kept.",
        "Next: --check_photos, which says whether the photos seem to pay.",
    ]


def test_advice_fits_the_run():
    def advice(model="cscnn", figures=GOOD, warm_start_from=None, **given):
        told = configure(model, given, data_dir="DATA", warm_start_from=warm_start_from)
        return lines(figures, told)[-1]

    assert "--check_photos" in advice()
    # Which a warm start refuses.
    warm = advice(warm_start_from="RUN")
    arms = '--compare="din,cscnn,cscnn --shuffle_images", from scratch: '
    assert warm.startswith(f"Next: {arms}")
    assert "--check_photos" not in advice(figures=changed(photos=None))
    unpaid = changed(photos={**PHOTOS, "interval": [-0.1, 0.1]})
    assert advice(figures=unpaid).endswith("another CNN: --cnn_backbone.")
    assert advice("hcm", unpaid).endswith("--backbone of extract_feature_maps.")
    # What is next is for its model, not for the control.
    assert not any(
        "Next" in line
        for line in lines(GOOD, configure("hccm", {"shuffle_images": True}))
    )
