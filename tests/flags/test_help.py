"""The help of `train_main.py` has every flag, with a sentence of what it is."""

import re

import pytest
from absl import flags

import train_main
from hccm_tf.flags.define import define_flags
from hccm_tf.flags.groups import all_groups, own_fields
from hccm_tf.flags.help import WIDTH, help_text
from hccm_tf.flags.reference import reference
from hccm_tf.models import CHOICES, find_model
from hccm_tf.options import describe
from tests.flags.test_read import MINE


@pytest.fixture(scope="module")
def blocks():
    """Of the help, without the text before the flags."""
    text = help_text(train_main.__doc__, CHOICES.values())
    head = train_main.__doc__.strip()
    assert text.startswith(head) and text.endswith("\n")
    return text.removeprefix(head).strip().split("\n\n")


def _flags_of(block):
    """Dict from a flag, as it is written, to its text."""
    parts = re.split(r"^  --(\S+)$", block, flags=re.MULTILINE)
    names, texts = parts[1::2], parts[2::2]
    return {n: " ".join(t.split()) for n, t in zip(names, texts, strict=True)}


def test_every_flag_is_there_once(blocks):
    values = flags.FlagValues()
    define_flags(values, CHOICES.values())
    written = [name for block in blocks for name in _flags_of(block)]
    for name in values:
        form = f"[no]{name}" if values[name].boolean else name
        assert written.count(form) >= 1, name
    assert {name.removeprefix("[no]") for name in written} == set(values)
    # An option of the same name is there again where models say something else of it.
    again = {name for name in written if written.count(name) > 1}
    assert again == {"[no]channel_attention", "similarity"}


def test_all_is_said_in_sentences(blocks):
    groups = list(all_groups(CHOICES.values()).items())
    assert len(blocks) == len(groups) > 8
    for block, (options, readers) in zip(blocks, groups, strict=True):
        title = " ".join(re.split(r"^  --", block, flags=re.MULTILINE)[0].split())
        assert title.startswith(options.__doc__.partition("\n")[0])
        assert title[0].isupper() and title.endswith(".")
        if readers is not None and len(readers) < len(CHOICES):
            names = ", ".join(model.name for model in readers)
            assert title.endswith(f"Read by {names}.")
        texts = _flags_of(block)
        assert len(texts) == len(own_fields(options))
        for name, text in texts.items():
            assert text[0].isupper() and text.endswith("."), name
            assert len(text.split()) > 3, name
        for field in own_fields(options):
            assert any(describe(field) in text for text in texts.values())
        assert max(map(len, block.splitlines())) <= WIDTH


def test_what_is_the_default_and_who_reads_it(blocks):
    texts = {}
    for block in blocks:
        texts |= _flags_of(block)
    assert texts["hidden_units"].endswith("By default 400,160,80.")
    assert texts["[no]products"].endswith("By default no.")
    assert texts["learning_rate"].endswith("By default 0.001.")
    assert "none, cosine" in texts["similarity"]
    images = "din_fixed_cnn, hcm, late_fusion, hccm, cscnn"
    assert f"Read by {images}, trees." in texts["[no]shuffle_images"]
    assert "Read by" not in texts["[no]allow_links"]
    assert "Read by late_fusion, hccm, cscnn." in texts["[no]shuffle_categories"]
    assert "By default" not in texts["data_dir"]


def test_a_model_of_ones_own_has_help():
    text = help_text("Head.", [*CHOICES.values(), find_model(MINE)])
    assert "My answer. Read by my_model.\n  --power\n      The power of the" in text


def test_help_ends_the_program(capsys):
    for word in ("--help", "-h"):
        with pytest.raises(SystemExit) as end:
            train_main.parse_flags(["train_main.py", "--no_such_flag", word])
        assert end.value.code == 0
        output = capsys.readouterr()
        assert output.out == help_text(train_main.__doc__, CHOICES.values())
        assert not output.err


def test_the_reference_page_has_every_flag_with_its_default():
    page = reference(CHOICES.values())
    rows = re.findall(r"^\| `--(\S+)` \| (.*?) \| (.+) \|$", page, re.MULTILINE)
    values = flags.FlagValues()
    define_flags(values, CHOICES.values())
    assert {name.removeprefix("[no]") for name, *_ in rows} == set(values)
    found = {name: (default, meaning) for name, default, meaning in rows}
    assert found["hidden_units"][0] == "`400,160,80`"
    assert found["[no]products"][0] == "`no`" and found["data_dir"][0] == ""
    assert found["[no]shuffle_categories"][1].endswith("`hccm`, `cscnn`.")
