import pytest

from hccm_tf.errors import with_flag

FLAGS = {"seed", "resume", "image_dir", "model", "warm_start"}


@pytest.mark.parametrize(
    ("message", "written"),
    [
        ("seed: from 0 on", "--seed: from 0 on"),
        ("seed=-1: from 0 on", "--seed=-1: from 0 on"),
        ("go on with resume=True, or", "go on with --resume, or"),
        ("with warm_start=all (resume=True)", "with --warm_start=all (--resume)"),
        ("seeds: of a seed", "seeds: of a seed"),
        (
            "image_dir=D: such as https://h/a?model=b&seed=3 and a/seed=3/c",
            "--image_dir=D: such as https://h/a?model=b&seed=3 and a/seed=3/c",
        ),
        ("Received: seed=3", "Received: seed=3"),
    ],
)
def test_arguments_become_flags(message, written):
    assert with_flag(message, FLAGS) == written
