import pathlib

import pytest
from absl import flags

from hccm_tf.comparison.arms import Arm, pairs, read_arms
from hccm_tf.comparison.search import check_same_budget, draw_settings, values_of
from hccm_tf.configuration import readable
from hccm_tf.errors import InputError
from hccm_tf.flags.read import parse, typed
from hccm_tf.models import MODELS

ROOT = pathlib.Path(__file__).parents[2]


def parsed(*words):
    """The flags of `train_main.py`, parsed."""
    values = flags.FlagValues()
    words = ["--data_dir=DATA", "--run_dir=RUN", *words]
    assert parse(values, ["train_main.py", *words]) == ["train_main.py"]
    return values


def arms_of(*words):
    """The arms of a command line."""
    values = parsed(*words)
    return read_arms(values, typed(values, words))


def test_flags_of_an_arm():
    compare = '--compare=din,"hccm --cnn_filters=4,8 --shuffle_images --dropout=0.5"'
    first, second = arms_of(compare, "--dropout=0.1", "--seeds=3")
    assert (first.label, first.is_control) == ("din", False)
    assert second.is_control
    assert first.flags["model"] == "--model=din"
    assert first.flags["dropout"] == "--dropout=0.1"
    assert first.flags["products"] == "--noproducts"
    assert first.flags["data_dir"] == "--data_dir=DATA"
    changed = {n for n in first.flags if first.flags[n] != second.flags[n]}
    assert changed == {"model", "dropout"}
    # Each has all that its model reads, and nothing else.
    din, hccm = (set(readable(MODELS[name])) for name in ("din", "hccm"))
    assert second.flags.keys() - first.flags.keys() == hccm - din
    given = {"model", "data_dir", "strategy"}
    assert first.flags.keys() == (din - {"max_history"}) | given
    assert second.flags["cnn_filters"] == "--cnn_filters=4,8"
    assert second.flags["shuffle_images"] == "--shuffle_images"
    assert second.flags["prior_channel"] == "--prior_channel"
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
        ("din,hccm --flagfile=nowhere", "nowhere|sets --flagfile"),
        ("din,din --feature_maps=OTHER", "the same model with the same settings"),
        ("din,hccm 'x", "quotation"),
        ("din,din --shuffle_images", "--shuffle_images: model din does not read it"),
        ("din,cscnn --similarity=cosine", "--similarity: model cscnn does not read it"),
        ("din,hcm --noprior_channel", "--prior_channel: model hcm does not read it"),
        (
            "din,din --cnn_filters=32,64",
            "arm 'din --cnn_filters=32': --cnn_filters: model din does not read it; "
            "it reads --embedding_dim, .*--products, .*--epochs, ",
        ),
        (
            "din,hccm --cnn_filters=4",
            "'hccm --cnn_filters=4': --cnn_filters: one width",
        ),
        ("din,base --products", "products: model base.*it reads --embedding_dim"),
        ("din", "two or more"),
        ("din,hccm,hccm", "two or more different"),
        ("din,din --dropout=0", "'din' and 'din --dropout=0' are the same model"),
        ("hccm --prior_channel,din,hccm --channel_attention", "are the same model"),
        ("din,,hccm", "--compare"),
    ],
)
def test_errors_name_the_arm_and_the_flag(compare, words):
    with pytest.raises(InputError, match=words) as error:
        arms_of(f"--compare={compare}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "flag", ["--export_dir=MODELS", "--explain=3", "--projector=3", "--from_run=R"]
)
def test_what_is_of_one_model_is_not_of_a_comparison(flag):
    with pytest.raises(InputError, match=f"{flag.partition('=')[0]} is of one model"):
        arms_of("--compare=din,hccm", flag)


def test_what_is_compared_with_what():
    labels = (
        "din,din_fixed_cnn,hcm --products,hccm --products,hccm,hccm --shuffle_images"
    )
    arms = arms_of(f"--compare={labels}")
    assert [(pair.arm, pair.base, pair.kind) for pair in pairs(arms)] == [
        (1, 0, "step"),
        (2, 0, "variant"),
        (3, 4, "variant"),
        (4, 1, "step"),
        (5, 0, "control"),
        (4, 5, "photos"),
    ]


def test_trees_stand_beside_the_order():
    """Also as the first arm; of networks they take no option that all are given."""
    bars = ("trees", "trees --similarity=cosine", "trees --similarity=cosine")
    labels = [*bars[:2], "din", "hcm", "hccm", f"{bars[2]} --shuffle_images"]
    words = ("--similarity=histogram", "--epochs=3", "--seed=7", "--max_history=6")
    arms = arms_of(f"--compare={','.join(labels)}", *words)
    plain, cosine, *_, shuffled = arms
    assert plain.flags == {
        "model": "--model=trees",
        "data_dir": "--data_dir=DATA",
        "strategy": "--strategy=one_device",
        "similarity": "--similarity=none",
        "seed": "--seed=7",
        "max_history": "--max_history=6",
        "shuffle_images": "--noshuffle_images",
    }
    assert cosine.flags["similarity"] == "--similarity=cosine"
    assert arms[3].flags["similarity"] == "--similarity=histogram"
    assert (plain.sees_photos, cosine.sees_photos) == (False, True)
    assert plain.is_trees and not arms[2].is_trees and shuffled.is_control
    found = [(arms[p.arm].label, arms[p.base].label, p.kind) for p in pairs(arms)]
    assert found == [
        (labels[1], "trees", "variant"),
        ("hcm", "din", "step"),
        ("hccm", "hcm", "step"),
        (labels[5], "trees", "control"),
        (labels[1], labels[5], "photos"),
        ("din", "trees", "trees"),
        ("hccm", labels[1], "trees"),
    ]
    # Without a network that sees photos, the last is compared with both.
    arms = arms_of("--compare=base,din,trees --similarity=cosine,trees")
    assert [(pair.arm, pair.base, pair.kind) for pair in pairs(arms)] == [
        (1, 0, "step"),
        (2, 3, "variant"),
        (1, 2, "trees"),
        (1, 3, "trees"),
    ]
    (pair,) = pairs(arms_of("--compare=trees --similarity=cosine,trees"))
    assert (pair.arm, pair.base, pair.kind) == (0, 1, "variant")


def test_the_search_is_the_same_for_every_arm():
    arms = arms_of("--compare=din,hccm --id_dropout=3")
    with pytest.raises(InputError, match="'din' and 'hccm --id_dropout=3' differ in"):
        check_same_budget(arms)
    check_same_budget(arms_of("--compare=trees,din,hccm", "--id_dropout=3"))
    settings = draw_settings(30)
    assert settings[0] == {} and settings[:5] == draw_settings(4)
    for drawn in settings[1:]:
        assert 5e-4 <= drawn["learning_rate"] <= 5e-3
        assert 0 <= drawn["dropout"] <= 0.5
        assert 3 <= drawn["id_dropout"] <= 300
        assert values_of(arms[0], drawn) == drawn
    assert len({drawn["dropout"] for drawn in settings[1:]}) > 15
    assert {drawn["match_shares"] for drawn in settings[1:]} == {False, True}
    assert values_of(arms[1], {}) == {
        "learning_rate": 1e-3,
        "dropout": 0.0,
        "id_dropout": 3.0,
        "match_shares": False,
    }


def test_flags_for_all_arms_may_be_read_by_some(tmp_path):
    words = ("--similarity=cosine", "--noprior_channel")
    din, hccm = arms_of("--compare=din,hccm", *words)
    assert not {"similarity", "prior_channel"} & set(din.flags)
    assert hccm.flags["similarity"] == "--similarity=cosine"
    assert hccm.configuration.options.prior_channel is False
    with pytest.raises(InputError, match="--prior_channel: no arm of --compare reads"):
        arms_of("--compare=din,hcm", *words)
    with pytest.raises(InputError, match="--similarity: no arm of --compare reads it"):
        arms_of("--compare=din,trees", words[0])


def test_a_flag_of_a_flagfile_may_be_read_by_no_arm(tmp_path, capsys):
    (tmp_path / "shared.flags").write_text("--noprior_channel\n--dropout=0.3\n")
    arms = arms_of("--compare=din,base", f"--flagfile={tmp_path / 'shared.flags'}")
    assert [arm.flags["dropout"] for arm in arms] == ["--dropout=0.3"] * 2
    assert capsys.readouterr().out == (
        "left out of the flagfile: --prior_channel: no arm of --compare reads it\n"
    )


@pytest.mark.parametrize("flagfiles", [["table1"], ["hccm", "table1"]])
def test_the_table_of_the_papers(flagfiles):
    paths = [ROOT / "configs" / f"{name}.flags" for name in flagfiles]
    arms = arms_of(*(f"--flagfile={path}" for path in paths))
    assert {arm.flags["model"].partition("=")[2] for arm in arms} == set(MODELS)
    kinds = [pair.kind for pair in pairs(arms)]
    assert kinds.count("step") == 4 and kinds.count("control") == 1
    found = [(arms[p.arm].label, arms[p.base].label) for p in pairs(arms)]
    assert ("late_fusion --image_sides=both", "base") in found
    assert ("hccm --noprior_channel", "hccm") in found


def test_folder():
    assert Arm("hccm --shuffle_images", None, {}).folder == "hccm-shuffle_images"
    assert Arm("hccm --a=../x", None, {}).folder == "hccm-a=..-x"
