"""Steps that fail; their worker processes have nothing else to import."""

import os

from hccm_tf.errors import InputError


def fail(number):
    if number == 2:
        raise InputError("log.csv: row 3")


def fail_otherwise(number):
    raise ZeroDivisionError("no input error")


def die(number):
    if number == 0:
        os._exit(9)
