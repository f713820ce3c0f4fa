"""The vocabularies of a schema as variables of an export."""

import dataclasses

import tensorflow as tf

from hccm_tf.data.column_names import input_name


def in_variables(schema):
    """A schema whose vocabularies and checks are variables.

    Those are in an export once, and not in its graph, which has 2 GB at most.
    """
    return dataclasses.replace(
        schema,
        vocabularies=_variables(schema.vocabularies, "vocabulary"),
        checks=_variables(schema.checks, "checks"),
    )


def _variables(arrays, what):
    return {
        name: tf.Variable(array, trainable=False, name=f"{input_name(name)}_{what}")
        for name, array in arrays.items()
    }
