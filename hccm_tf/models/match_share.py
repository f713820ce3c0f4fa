"""How often a candidate's value is among the clicks."""

from keras import ops

OOV = 1  # index of all unknown values


def match_share(value, clicks):
    """Share of the clicks that have a candidate's value.

        share_n = |{t : clicks_t = value_n}| / |{t : clicks_t is a click}|

    A cross statistic of candidate and history, as the hard search of SIM (CIKM '20)
    finds them. An unknown value matches nothing (what is missing of a `hash` is one of
    its values), and an empty history gives 0.

    Args:
        value: int `[B]` or `[B, N]`, indices of a feature.
        clicks: int `[B, T]`, of the same feature, 0 where it is padded.

    Returns:
        float32, of the shape of `value`.
    """
    values = value[:, None] if len(value.shape) == 1 else value
    known = ops.greater(clicks, OOV)[:, None]
    same = ops.logical_and(ops.equal(values[..., None], clicks[:, None]), known)
    count = ops.sum(ops.cast(ops.not_equal(clicks, 0), "float32"), axis=1)[:, None]
    share = ops.sum(ops.cast(same, "float32"), axis=-1) / ops.maximum(count, 1)
    return share[:, 0] if len(value.shape) == 1 else share
