"""Makes absl's flags of options. A flag that is not given has the value `None`."""

from absl import flags

from hccm_tf.flags.groups import all_groups, own_fields
from hccm_tf.options import describe, kind_of

MAKERS = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    tuple: flags.DEFINE_list,
    list: flags.DEFINE_list,
}


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
    # Whether the option takes the value, its class says.
    make = MAKERS.get(kind_of(field), flags.DEFINE_string)
    make(field.name, None, describe(field), flag_values=flag_values)
