"""A command's words, flags and exit code."""

import os
import subprocess
import sys

import pytest

COMMAND = '''
"""Greets people."""

import json

import absl.logging
from absl import flags

from hccm_tf.commands import run
from hccm_tf.errors import InputError

def define_flags():
    flags.DEFINE_bool("loud", True, "Whether to shout.")
    flags.DEFINE_integer("times", 1, "How often.", lower_bound=1)
    flags.DEFINE_string("name", None, "Whom.", required=True)

def main(words):
    absl.logging.info("of no concern")
    absl.logging.warning("of concern")
    if flags.FLAGS.name == "nobody":
        says = "name: nobody is there; go on with loud=True or quiet=True."
        raise InputError(f"{says} Received: 'loud=True'")
    print(json.dumps([words, flags.FLAGS.loud, flags.FLAGS.times]))

if __name__ == "__main__":
    run(main, define_flags, words=WORDS)
'''


@pytest.fixture
def command(tmp_path):
    """Function that runs a command which takes `words`."""

    def run(*arguments, words=None):
        script = tmp_path / "greet.py"
        script.write_text(COMMAND.replace("WORDS", repr(words)))
        return subprocess.run(
            [sys.executable, str(script), *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    return run


@pytest.mark.parametrize(
    "arguments, words, expected",
    [
        (["--name=a", "--noloud", "--times=3"], None, "[[], false, 3]"),
        (["--name=a", "--", "--runner=x", "y"], "--", '[["--runner=x", "y"], true, 1]'),
        (["--name=a"], "--", "[[], true, 1]"),
        (["--name=a", "--"], "--", "[[], true, 1]"),
        (["--name=a", "one", "two"], "RUN", '[["one", "two"], true, 1]'),
        (["one", "--name=a", "two"], "RUN", '[["one", "two"], true, 1]'),
        (["--name=a", "--", "--one"], "RUN", '[["--one"], true, 1]'),
    ],
)
def test_words(command, arguments, words, expected):
    found = command(*arguments, words=words)
    assert (found.returncode, found.stdout) == (0, f"{expected}\n"), found.stderr


@pytest.mark.parametrize("words", [None, "--"])
@pytest.mark.parametrize(
    "arguments, received",
    [
        (["--name=a", "--loud", "false"], "false"),
        # Flags after the word count: none that is required is reported as missing.
        (["--loud", "false", "--name=a"], "false"),
        (["--name=a", "several", "words"], "several words"),
    ],
)
def test_words_that_belong_to_no_flag(command, arguments, received, words):
    found = command(*arguments, words=words)
    assert (found.returncode, found.stdout) == (2, "")
    (line,) = found.stderr.splitlines()
    assert line.startswith("error: words that belong to no flag; write --flag=value")
    assert line.endswith(f"Received: {received}")


def test_words_after_two_hyphens_are_words(command):
    found = command("--name=a", "--", "--times=3")
    assert found.returncode == 2
    assert found.stderr.splitlines()[-1].endswith("Received: --times=3")


def test_errors_that_a_user_can_mend(command):
    found = command("--name=nobody")
    assert (found.returncode, found.stdout) == (2, "")
    says = (
        "error: --name: nobody is there; go on with --loud or quiet=True. "
        "Received: 'loud=True'"
    )
    assert found.stderr.splitlines()[-1] == says
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--name=a", "--tines=3"], "'tines'. Did you mean: times"),
        (["--name=a", "--times=0"], "--times=0"),
        ([], "--name"),
    ],
)
def test_errors_of_flags(command, arguments, says):
    found = command(*arguments)
    assert (found.returncode != 0, found.stdout.count("\n[")) == (True, 0)
    assert says in found.stderr and "Traceback" not in found.stderr


def test_help(command):
    found = command("--help")
    assert "Greets people." in found.stdout
    assert "Whether to shout." in found.stdout
    assert found.stderr == ""


def test_libraries_information_is_shown_on_request(command):
    quiet = command("--name=a").stderr
    assert "of concern" in quiet and "of no concern" not in quiet
    assert "of no concern" in command("--name=a", "--verbosity=0").stderr
    assert "of concern" not in command("--name=a", "--verbosity=-2").stderr
