"""Options of a module whose annotations are text."""

from __future__ import annotations

import dataclasses

from hccm_tf.options import Options, option


@dataclasses.dataclass(frozen=True)
class Later(Options):
    """One option."""

    cut: int | None = option(None, "Where to cut.", lower=1)
