"""What a run is told of `trees`, boosted trees on match features: the networks' bar."""

import dataclasses

from hccm_tf.options import Options, option


class Trees:
    """No `Model`: it builds no network, and `hccm_tf.trees` trains it.

    Attributes:
        name: how users call it.
        Options: class of its options.
        settings: names of the `TrainingSettings` that it reads.
        has_images: whether it may take images; see `Options.similarity`.
    """

    name = "trees"
    settings = ("seed", "max_history", "shuffle_images")
    has_images = True
    takes_pixels = tells_category = has_attention = False

    @dataclasses.dataclass(frozen=True)
    class Options(Options):
        """The trees, which of training read seed, max_history and shuffle_images."""

        similarity: str = option(
            "none",
            "What the trees see of the candidate's similarity to the history's images: "
            "{choices}; cosine gives mean, maximum, soft maximum and that with the "
            "history's mean, of pooled maps; category_cosine adds the first three over "
            "the clicks of the candidate's category. An arm of --compare says it "
            "itself.",
            ("none", "cosine", "category_cosine"),
        )
