"""Words that belong to no flag, such as `--products false` leaves, are errors."""

import ast
import pathlib

import pytest

from tests import processes

ROOT = pathlib.Path(__file__).parents[2]
IMPORTERS = ("amazon_reviews", "dvbpr", "microlens")
# Command → the flags that it cannot do without.
COMMANDS = {
    "tfrecords_tools.build_examples": ("items", "impressions", "output_dir"),
    "tfrecords_tools.extract_feature_maps": ("items", "output_dir"),
    "tfrecords_tools.import_feature_maps": ("input", "output_dir"),
    "tfrecords_tools.inspect_examples": ("data_dir",),
    "tfrecords_tools.make_demo": ("output_dir",),
    "tfrecords_tools.refresh_export": ("export_dir", "items"),
    "tfrecords_tools.semantic_ids": ("feature_maps", "items", "output"),
    "tfrecords_tools.validate": ("data_dir",),
    "tfrecords_tools.import_amazon_reviews": ("meta", "output_dir"),
    "tfrecords_tools.import_dvbpr": ("input", "output_dir"),
    "tfrecords_tools.importers.microlens": ("input", "output_dir"),
    "hccm_tf.serving.server_config": (),
    "hccm_tf.training.local_cluster": (),
}


def _run(*arguments, cwd=ROOT):
    return processes.run(arguments, cwd=cwd)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_word_of_no_flag(command, tmp_path):
    flags = [f"--{name}={tmp_path / name}" for name in COMMANDS[command]]
    after = ["--", "x"] if command.endswith("local_cluster") else []
    result = _run("-m", command, *flags, "false", *after)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: words") and line.endswith("Received: false")
    assert not result.stdout and list(tmp_path.iterdir()) == []


def test_local_cluster_needs_a_command():
    result = _run("-m", "hccm_tf.training.local_cluster", "--workers=1")
    assert (result.returncode, result.stderr) == (
        2,
        "error: what to run stands after --\n",
    )


@pytest.mark.parametrize("words", [(), ("export",), ("export", "request", "--loud")])
def test_ask_takes_two_words(words, tmp_path):
    result = _run(ROOT / "hccm_tf" / "serving" / "ask.py", *words, cwd=tmp_path)
    assert result.returncode == 2 and not result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and ("request" in line or "--loud" in line)


@pytest.mark.parametrize(
    "words, says",
    [
        (("nothing", "request.json"), "nothing: no version of an export"),
        (("model", "request.json"), "it has the versions 3, 4"),
        (("model/3", "request.json"), "request.json: no request"),
        (("model/3", "list.json"), "list.json: no request"),
    ],
)
def test_ask_names_what_is_wrong(words, says, tmp_path):
    for version in ("3", "4", "other"):
        (tmp_path / "model" / version).mkdir(parents=True)
        (tmp_path / "model" / version / "saved_model.pb").touch()
    (tmp_path / "list.json").write_text("[1]")
    result = _run(ROOT / "hccm_tf" / "serving" / "ask.py", *words, cwd=tmp_path)
    (line,) = result.stderr.splitlines()
    assert result.returncode == 2 and line.startswith("error: ") and says in line


@pytest.mark.parametrize("name", IMPORTERS)
def test_both_names_of_an_importer_show_its_help(name):
    short, long = (
        _run("-m", f"tfrecords_tools.{command}", "--help").stdout
        for command in (f"import_{name}", f"importers.{name}")
    )
    assert short == long
    source = ROOT / "tfrecords_tools" / "importers" / f"{name}.py"
    title = ast.get_docstring(ast.parse(source.read_text())).splitlines()[0]
    assert short.startswith(title) and "--output_dir: The folder SHOP" in short


def test_every_importer_has_a_short_name():
    tools = ROOT / "tfrecords_tools"
    commands = {
        path.stem
        for path in (tools / "importers").glob("*.py")
        if '__name__ == "__main__"' in path.read_text()
    }
    assert commands == set(IMPORTERS)
    for name in IMPORTERS:
        page = (tools / f"import_{name}.py").read_text()
        assert f'"tfrecords_tools.importers.{name}"' in page
