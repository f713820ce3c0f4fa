import copy
import pathlib

import pytest

import train_main
from hccm_tf.comparison.arms import Arm, pairs, read_arms
from hccm_tf.comparison.search import check_same_budget, draw_settings, values_of
from hccm_tf.errors import InputError
from hccm_tf.models import MODELS


def parsed(*words):
    """The flags of `train_main.py`, parsed."""
    values = copy.deepcopy(train_main.FLAGS)
    values(["train_main.py", "--data_dir=DATA", "--run_dir=RUN", *words])
    return values


def test_flags_of_an_arm():
    compare = '--compare=din,"hccm --cnn_filters=4,8 --shuffle_images --dropout=0.5"'
    first, second = read_arms(parsed(compare, "--dropout=0.1", "--seeds=3"))
    assert (first.label, first.is_control) == ("din", False)
    assert second.is_control
    assert first.flags["model"] == "--model=din"
    assert first.flags["dropout"] == "--dropout=0.1"
    assert first.flags["shuffle_images"] == "--noshuffle_images"
    assert first.flags["data_dir"] == "--data_dir=DATA"
    changed = {n for n in first.flags if first.flags[n] != second.flags[n]}
    assert changed == {"model", "cnn_filters", "shuffle_images", "dropout"}
    assert second.flags["cnn_filters"] == "--cnn_filters=4,8"
    # What only a comparison has, and what has no value, is not passed on.
    assert not {"compare", "seeds", "oracle", "feature_maps"} & set(first.flags)
    assert first.folder == "din" and "/" not in second.folder
    # They are flags of train_main.py, with the same values.
    again = parsed(*second.flags.values())
    assert (again.model, again.cnn_filters, again.dropout) == ("hccm", ["4", "8"], 0.5)


@pytest.mark.parametrize(
    ("compare", "words"),
    [
        ("din,hccn", "arm 'hccn'.*hccn"),
        ("din,hccm --no_such=1", "arm 'hccm --no_such=1'.*no_such"),
        ("din,hccm --dropout=2", "dropout"),
        ("din,hccm shuffled", "shuffled"),
        ("din,hccm --seed=4", "sets --seed, which all arms share"),
        ("din,hccm --data_dir=OTHER", "sets --data_dir"),
        ("din,hccm --model=hcm", "sets --model"),
        ("din,hccm 'x", "quotation"),
        ("din,din --shuffle_images", "sets --shuffle_images, which changes nothing"),
        ("din,cscnn --similarity=cosine", "similarity.*nothing in it but in din_f"),
        ("din,hcm --noprior_channel", "prior_channel.*nothing in it but in hccm"),
        ("din", "two or more"),
        ("din,hccm,hccm", "two or more different"),
        ("din,,hccm", "--compare"),
    ],
)
def test_errors_name_the_arm_and_the_flag(compare, words):
    with pytest.raises(InputError, match=words):
        read_arms(parsed(f"--compare={compare}"))


@pytest.mark.parametrize("flag", ["--export_dir=MODELS", "--explain=3"])
def test_what_is_of_one_model_is_not_of_a_comparison(flag):
    with pytest.raises(InputError, match=f"{flag.partition('=')[0]} is of one model"):
        read_arms(parsed("--compare=din,hccm", flag))


def test_what_is_compared_with_what():
    labels = (
        "din,din_fixed_cnn,hcm --products,hccm --products,hccm,hccm --shuffle_images"
    )
    arms = read_arms(parsed(f"--compare={labels}"))
    assert [(pair.arm, pair.base, pair.kind) for pair in pairs(arms)] == [
        (1, 0, "step"),
        (2, 0, "variant"),
        (3, 4, "variant"),
        (4, 1, "step"),
        (5, 0, "control"),
        (4, 5, "photos"),
    ]


def test_the_search_is_the_same_for_every_arm():
    arms = read_arms(parsed("--compare=din,hccm --id_dropout=3"))
    with pytest.raises(InputError, match="'hccm --id_dropout=3' sets --id_dropout"):
        check_same_budget(arms)
    check_same_budget(read_arms(parsed("--compare=din,hccm", "--id_dropout=3")))
    settings = draw_settings(30)
    assert settings[0] == {} and settings[:5] == draw_settings(4)
    for drawn in settings[1:]:
        assert 5e-4 <= drawn["learning_rate"] <= 5e-3
        assert 0 <= drawn["dropout"] <= 0.5
        assert 1 <= drawn["id_dropout"] <= 100
        assert values_of(arms[0], drawn) == drawn
    assert len({drawn["dropout"] for drawn in settings[1:]}) > 15
    assert values_of(arms[1], {}) == {
        "learning_rate": 1e-3,
        "dropout": 0.0,
        "id_dropout": 3.0,
    }


def test_flags_for_all_arms_may_be_read_by_some():
    read_arms(parsed("--compare=din,hccm", "--similarity=cosine", "--noprior_channel"))


def test_the_table_of_the_papers():
    path = pathlib.Path(train_main.__file__).parent / "configs" / "table1.flags"
    arms = read_arms(parsed(f"--flagfile={path}"))
    assert {arm.flags["model"].partition("=")[2] for arm in arms} == set(MODELS)
    kinds = [pair.kind for pair in pairs(arms)]
    assert kinds.count("step") == 4 and kinds.count("control") == 1
    found = [(arms[p.arm].label, arms[p.base].label) for p in pairs(arms)]
    assert ("late_fusion --image_sides=both", "base") in found
    assert ("hccm --noprior_channel", "hccm") in found


def test_folder():
    assert Arm("hccm --shuffle_images", {}).folder == "hccm-shuffle_images"
    assert Arm("hccm --a=../x", {}).folder == "hccm-a=..-x"
