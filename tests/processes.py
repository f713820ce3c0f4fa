"""Python processes that begin with TensorFlow and Keras imported.

To import them takes a process ten seconds of CPU time. A server imports them once, and
what is started here is forked from it: otherwise it is a process as any other, with
arguments, environment, output and end of its own. What `python` itself does differently
each time is a question to `subprocess`: what a process imports, and in which order it
goes through a set of texts.
"""

import atexit
import functools
import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
from multiprocessing import forkserver


@functools.cache
def server():
    """The context of `multiprocessing` whose server it is, which runs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.imported"])
    forkserver.ensure_running()
    return context


def _main(words, env, cwd, stdout, stderr):
    """What `python` does with the words of its command line."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for path, number in ((stdout, 1), (stderr, 2)):
        with open(path, "ab") as file:
            os.dup2(file.fileno(), number)
    try:
        first, *others = words
        if first == "-c":
            sys.argv = ["-c", *others[1:]]
            exec(compile(others[0], "<string>", "exec"), {"__name__": "__main__"})
        elif first == "-m":
            sys.argv = others
            runpy.run_module(others[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            sys.path.insert(0, str(pathlib.Path(first).parent))
            runpy.run_path(first, run_name="__main__")
    finally:
        # A forked process ends without what `python` runs at its end, and there is no
        # public name for it.
        atexit._run_exitfuncs()


class Process:
    """A process that runs; as `subprocess.Popen`, whose methods are its.

    Args:
        words: what follows `python` on a command line.
        stdout, stderr: paths of files, to which it is appended.
        env: the environment; this process's by default.
        cwd: the folder that it is started in; this process's by default.
    """

    def __init__(self, words, stdout, stderr, env=None, cwd=None):
        words = [str(word) for word in words]
        env = {**os.environ} if env is None else env
        arguments = words, env, cwd or os.getcwd(), stdout, stderr
        self._process = server().Process(target=_main, args=arguments)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self.returncode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("python", timeout)
        return self.returncode

    def send_signal(self, number):
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self):
        self._process.kill()


class Script(Process):
    """A process whose output is kept."""

    def __init__(self, words, env=None, cwd=None):
        self._folder = tempfile.TemporaryDirectory()
        self._paths = [pathlib.Path(self._folder.name, name) for name in ("out", "err")]
        super().__init__(words, *self._paths, env, cwd)

    def said(self):
        """What it has written to standard output, up to now."""
        return self._paths[0].read_text() if self._paths[0].exists() else ""

    def communicate(self, timeout=None):
        """Waits for the end; standard output and error as text."""
        self.wait(timeout)
        with self._folder:
            return tuple(path.read_text() for path in self._paths)


def run(words, env=None, cwd=None, check=False):
    """Runs a process to its end, as `subprocess.run` does, and keeps its output."""
    process = Script(words, env, cwd)
    output = process.communicate()
    ended = subprocess.CompletedProcess(words, process.returncode, *output)
    assert not check or ended.returncode == 0, ended.stderr[-3000:]
    return ended
