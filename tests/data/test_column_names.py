"""Which names columns may have, and what their inputs are called."""

import itertools
import keyword
import re

import pytest

from hccm_tf.data.column_names import (
    OWN_INPUTS,
    check_column_names,
    column_name,
    input_name,
)
from hccm_tf.errors import InputError

# Names that layers, operations, arguments and outputs have, and such that are ordinary.
CARRIED = [
    *("ctr", "item_image", "item_representation", "hidden_0", "ranker", "din", "hccm"),
    *("image_attention", "user_id_embedding", "user_id_dropout", "dropout_0", "cnn"),
    *("concatenate", "concatenate_1", "expand_dims", "get_item", "multiply", "stack"),
    *("inputs", "request", "args", "kwargs", "name", "training", "mask", "examples"),
    *("Price", "PRICE_2", "x_", "length", "representation", "size", "n" * 200),
]
ESCAPED = {
    "candidate_mask": "column__candidate_5f_mask",
    "Candidate_Image": "column__Candidate_5f_Image",
    "candidate_representation": "column__candidate_5f_representation",
    "image_map": "column__image_5f_map",
    "image_category": "column__image_5f_category",
    "class": "column__class",
    "None": "column__None",
    "self": "column__self",
    "ad position": "column__ad_20_position",
    "ad-position": "column__ad_2d_position",
    "geo.country": "column__geo_2e_country",
    "1st": "column__1st",
    "größe": "column__gr_c3b6__c39f_e",
    "x:y": "column__x_3a_y",
    "$x": "column___24_x",
    "Unnamed: 0": "column__Unnamed_3a__20_0",
    "__x": "column___5f__5f_x",
    "x'y": "column__x_27_y",
    "timestamp ": "column__timestamp_20_",
    "..": "column___2e__2e_",
    "%s.json": "column___25_s_2e_json",
    "column__1st": "column__column_5f__5f_1st",
}
REFUSED = ["", "a/b", "n" * 300, "ü" * 101, "x\0", "x\ny", "\ufeffx", "\ud800", 5, None]


def test_names_that_tensorflow_carries_are_their_own():
    for name in CARRIED:
        assert input_name(name) == name


def test_other_names_are_escaped():
    for name, expected in ESCAPED.items():
        assert input_name(name) == expected
    for name in OWN_INPUTS:
        assert input_name(name) not in OWN_INPUTS


def test_no_two_names_have_one_input():
    letters = ["a", "5", "f", "_", "-", "\xe4", "A", "", "column__"]
    names = {"".join(word) for word in itertools.product(letters, repeat=4)} - {""}
    inputs = {input_name(name) for name in [*names, *OWN_INPUTS, *keyword.kwlist]}
    assert len(inputs) == len(names | OWN_INPUTS | {*keyword.kwlist})
    assert all(re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) for name in inputs)
    assert all(column_name(input_name(name)) == name for name in names | {*ESCAPED})


def test_all_of_them_stand_beside_each_other():
    check_column_names([*CARRIED, *ESCAPED, "item_id", "image"])


@pytest.mark.parametrize("name", REFUSED)
def test_names_that_cannot_be(name):
    with pytest.raises(InputError, match="^column .*; rename the column$") as error:
        check_column_names(["item_id", name])
    assert repr(name) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("names", [("ITEM_ID", "item_id"), ("Größe", "größe")])
def test_names_that_differ_in_capitals_only(names):
    message = f"^columns {names[0]} and {names[1]} differ in capitals only"
    with pytest.raises(InputError, match=message):
        check_column_names(names)
