"""Makes absl's flags of options. A flag that is not given has the value `None`."""

from absl import flags

from hccm_tf.flags.groups import all_groups, own_fields
from hccm_tf.options import describe, kind_of


def define_flags(flag_values, models):
    """Defines the flags that are not there yet.

    Args:
        flag_values: `absl.flags.FlagValues`.
        models: subclasses of `hccm_tf.models.Model`, whose options become flags too.
    """
    for options in all_groups(models):
        for field in own_fields(options):
            # Models may have an option in common.
            if field.name not in flag_values:
                _define(field, flag_values)


def _define(field, flag_values):
    kind, metadata = kind_of(field), field.metadata
    arguments = {"name": field.name, "default": None, "help": describe(field)}
    arguments["flag_values"] = flag_values
    if kind in (int, float):
        arguments["lower_bound"] = metadata["lower"]
        arguments["upper_bound"] = metadata["upper"]
        make = flags.DEFINE_integer if kind is int else flags.DEFINE_float
    elif metadata["choices"] is not None:
        arguments["enum_values"] = list(metadata["choices"])
        make = flags.DEFINE_enum
    elif kind is bool:
        make = flags.DEFINE_bool
    elif kind in (tuple, list):
        make = flags.DEFINE_list
    else:
        make = flags.DEFINE_string
    make(**arguments)
