"""What all commands have in common: their words, their errors, a quiet start."""

import os
import pathlib
import re
import shlex
import sys

from absl import app, flags, logging

from hccm_tf.errors import InputError, report_input_errors
from hccm_tf.quiet import quiet_tensorflow

# The package's own flagfiles.
CONFIGS = pathlib.Path(__file__).parent / "configs"
# Before a command imports what imports TensorFlow. By itself it takes its fast kernels
# only where a processor has instructions for neural networks; elsewhere training took
# about twice as long.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
quiet_tensorflow()


def quiet_libraries():
    """Hides what libraries tell their own developers, unless --verbosity=0 asks."""
    flags.FLAGS.verbosity = logging.WARNING


def check_no_words(words):
    """Raises an `InputError` if there are words that belong to no flag."""
    if words:
        raise InputError(
            "words that belong to no flag; write --flag=value, and --noflag for false. "
            f"Received: {' '.join(words)}"
        )


def find_flagfiles(words):
    """The words of a command line, in which the package's flagfiles have their paths.

    `--flagfile=hccm` is its `configs/hccm.flags`, and so is that path where no such
    file stands, as it does in a checkout.
    """
    # The file may stand behind an = or be the next word.
    text = "\0".join(words)
    return re.sub("(?<![^\0])--?flagfile[=\0]([^\0]+)", _with_path, text).split("\0")


def _with_path(found):
    path = pathlib.Path(found[1])
    if not path.name:
        return found[0]
    own = CONFIGS / path.with_suffix(".flags").name
    if path.is_file() or path.parent.name not in ("", "configs") or not own.is_file():
        return found[0]
    return f"--flagfile={own}"


def say_next(*commands):
    """Prints what to type next.

    Args:
        *commands: lists of words; in capitals what the user has to fill in.
    """
    for words in commands:
        print(f"next: {shlex.join(map(str, words))}")


def run(main, define_flags, words=None):
    """Runs a command.

    Words that belong to no flag are an error, unless the command takes some: a flag
    without its `=`, such as `--products false`, would leave such a word.

    Args:
        main: function of the words, a list of str.
        define_flags: function that defines the command's flags.
        words: `None` if the command takes no words; `"--"` if it takes what stands
            after `--`; otherwise what they are, such as `"RUN"`, for all of them.
    """
    quiet_libraries()
    define_flags()
    argv, after = find_flagfiles(sys.argv), []
    if words == "--" and "--" in argv:
        place = argv.index("--")
        argv, after = argv[:place], argv[place + 1 :]

    def call(argv):
        with report_input_errors(flags.FLAGS):
            if words in (None, "--"):
                check_no_words(argv[1:])
            main(after if words == "--" else argv[1:])

    app.run(call, argv)
