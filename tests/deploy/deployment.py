"""What the tests of deploy/ share: where things are, and processes that never outlive a test."""

import argparse
import ctypes
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"

_parser = argparse.ArgumentParser()
_parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
_parser.add_argument("--compiler", default="c++")


class Build:
    """Programs of a build folder."""

    def __init__(self, folder, compiler):
        self.folder = folder.resolve()
        self.compiler = compiler
        self.node = self.folder / "kdn-node/kdn-node"
        self.placement = self.folder / "placement/daemon/kdn-placement"
        self.store_fetch = self.folder / "deploy/client/kdn_store_fetch"


def main():
    """Runs the tests of the calling module, as ctest and a person would."""
    global build
    args, rest = _parser.parse_known_args()
    build = Build(args.build, args.compiler)
    unittest.main(module="__main__", argv=[sys.argv[0], *rest], verbosity=2)


build = None


def tool(name, package):
    found = shutil.which(name)
    if found is None:
        raise unittest.TestCase.failureException(f"{name} is not installed; ./dev setup or apt-get install {package}")
    return found


def free_ports(count):
    """Ports that the system has just had free; held until all are known, so that they differ."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Process:
    """A process that is ended by its id when the test is over."""

    def __init__(self, add_cleanup, name, argv, folder):
        self.name = name
        self.log = folder / f"{name}.log"
        with open(self.log, "wb") as log:
            self.popen = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          preexec_fn=_die_with_parent)
        add_cleanup(self.stop)

    def output(self):
        return f"--- {self.name}\n" + self.log.read_text(errors="replace")[-2000:]

    def stop(self):
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(20)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        return self.popen.returncode


def temporary_folder(add_cleanup):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kdn-deploy-"))
    add_cleanup(shutil.rmtree, folder, ignore_errors=True)
    return folder


def wait_until(condition, what, processes=(), seconds=60):
    for _ in range(seconds * 20):
        if condition():
            return
        for process in processes:
            if process.popen.poll() is not None:
                raise AssertionError(f"{process.name} ended while {what} was waited for\n{process.output()}")
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds} s\n" + "\n".join(p.output() for p in processes))


def metrics(port):
    """The text of a daemon's metrics, or None while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return None
