#!/usr/bin/env python3
"""Installs the Debian packages in a clean root, runs the daemons there under their units' command lines, stores and
fetches from outside, runs docs/tutorial.md there, and removes them again.

    install_test.py --packages build/release/packages --client build/release/deploy/client/kdn_store_fetch \
        --root-tar build/clean-root.tar [--client-dev]

Needs root (namespaces, chroot), mmdebstrap and a Debian mirror. The root is made once and kept in --root-tar; packages
are installed by apt, with what they depend on. Nothing outlives the test: it runs in a process namespace and a mount
namespace of its own. --client-dev also installs kdn-client-dev there with a compiler, and builds its example against it.
"""

import argparse
import configparser
import os
import pathlib
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

DAEMONS = {"kdn-node": "/var/lib/kdn", "kdn-placement": "/var/lib/kdn-placement"}
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


class Failed(Exception):
    pass


def check(condition, what):
    if not condition:
        raise Failed(what)


def say(text):
    print(f"-- {text}", flush=True)


def run(argv, **kwargs):
    done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs)
    if done.returncode != 0:
        raise Failed(f"{shlex.join(str(a) for a in argv)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def make_root_tar(tar):
    """A Debian with what is essential, and apt."""
    say(f"making a clean root, {tar}")
    partial = tar.with_suffix(".partial.tar")
    mirrors = [p for p in ["/etc/apt/sources.list.d/debian.sources"] if os.path.exists(p)]
    run(["mmdebstrap", "--variant=apt", "--skip=cleanup/apt/lists", "bookworm", partial, *mirrors])
    partial.rename(tar)


class CleanRoot:
    """A root in a directory, with what programs expect of a running system. No init runs in it."""

    def __init__(self, tar):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="kdn-install-"))
        self.path.chmod(0o755)
        run(["tar", "-xf", tar, "-C", self.path, "--exclude=./dev/*"])
        self.mounts = []
        self._mount("-t", "proc", "proc", "proc")
        self._mount("-t", "tmpfs", "tmpfs", "dev")
        for name, minor in {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}.items():
            os.mknod(self.path / "dev" / name, 0o666 | 0o020000, os.makedev(1, minor))
            os.chmod(self.path / "dev" / name, 0o666)
        for name in ["resolv.conf", "hosts"]:
            if os.path.exists(f"/etc/{name}"):
                shutil.copy(f"/etc/{name}", self.path / "etc" / name)

    def _mount(self, *words):
        *words, where = words
        run(["mount", *words, self.path / where])
        self.mounts.append(self.path / where)

    def __truediv__(self, path):
        return self.path / path.lstrip("/")

    def sh(self, *argv):
        return run(["chroot", self.path, *argv], env=ENVIRONMENT)

    def remove(self):
        for mount in reversed(self.mounts):
            run(["umount", mount])
        if not any(os.path.ismount(self.path / d) for d in ["dev", "proc"]):
            shutil.rmtree(self.path)


class Unit:
    """What of a unit matters without systemd."""

    def __init__(self, path):
        # A setting may be given many times; the test needs none of those.
        parser = configparser.RawConfigParser(strict=False)
        parser.optionxform = str
        parser.read(path)
        self.settings = dict(parser["Service"])
        self.argv = shlex.split(self.settings["ExecStart"])
        self.stop_seconds = int(self.settings["TimeoutStopSec"].removesuffix("s"))


class Daemon:
    """A daemon under its unit's command line, user, limits and lack of privileges, in the root."""

    def __init__(self, root, unit, name):
        self.root, self.unit, self.name = root, unit, name
        self.port_file = root / DAEMONS[name] / "ports"
        if self.port_file.exists():
            self.port_file.unlink()
        user = unit.settings["User"]
        # Where this test may not raise the limit, the daemon runs with the one that there is.
        files = min(int(unit.settings["LimitNOFILE"]), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        self.log = open(root / "/var/tmp" / f"{name}.log", "ab")
        self.process = subprocess.Popen(
            ["chroot", root.path, "prlimit", f"--nofile={files}", "setpriv", f"--reuid={user}", f"--regid={user}",
             "--init-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", *unit.argv],
            env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            umask=int(unit.settings["UMask"], 8))
        self.addresses = self._wait_for_addresses()

    def _wait_for_addresses(self):
        for _ in range(600):
            if self.port_file.exists():
                return self.port_file.read_text().split()
            check(self.process.poll() is None, f"{self.name} ended at once:\n{self.output()}")
            time.sleep(0.1)
        raise Failed(f"{self.name} did not serve within a minute:\n{self.output()}")

    def output(self):
        return pathlib.Path(self.log.name).read_text(errors="replace")[-3000:]

    def check_privileges(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        uid = re.search(r"^Uid:\s+(\d+)", status, re.M).group(1)
        own = self.root.sh("id", "-u", self.unit.settings["User"]).strip()
        check(uid == own and uid != "0", f"{self.name} runs as user {uid}, not {own}")
        check(re.search(r"^CapEff:\s+0+$", status, re.M), f"{self.name} has capabilities")
        check("NoNewPrivs:\t1" in status, f"{self.name} could gain privileges")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(self.unit.stop_seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} did not stop within its unit's {self.unit.stop_seconds} s:\n{self.output()}")
        check(code == 0, f"{self.name} stopped with {code}:\n{self.output()}")


def processes_of(root):
    """Processes that run a program of the root, but for zombies."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                program = os.readlink(entry / "exe")
            except OSError:
                continue
            if program.startswith(str(root.path)):
                found.append(f"{entry.name} {program}")
    return found


def set_flags(root, name, flags):
    """Puts flags into the daemon's file, as an operator would."""
    path = root / f"/etc/kdn/{name}.conf"
    lines = [line for line in path.read_text().splitlines() if line.split(" = ")[0].strip() not in flags]
    path.write_text("\n".join(lines + [f"{key} = {value}" for key, value in flags.items()]) + "\n")


def scrape(address):
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return answer.read().decode()


def test_daemons(root, packages, client):
    say("installing")
    root.sh("apt-get", "install", "-y", "-qq", "--no-install-recommends", "curl")  # the tutorial's
    shared_files = ["/etc", "/usr", "/var", "/lib", "/."]
    root.sh("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages)
    files = {name: [f for f in root.sh("dpkg", "-L", name).split("\n") if f and f not in shared_files]
             for name in DAEMONS}
    for name, state in DAEMONS.items():
        held = (root / state).stat()
        uid = int(root.sh("id", "-u", Unit(root / f"/lib/systemd/system/{name}.service").settings["User"]))
        check((held.st_uid, held.st_mode & 0o777) == (uid, 0o700), f"{state} is not the daemon's own")
        check((root / f"/etc/systemd/system/multi-user.target.wants/{name}.service").is_symlink(),
              f"{name}.service is not enabled")
        check(f"/etc/kdn/{name}.conf" in root.sh("dpkg-query", "-W", "-f=${Conffiles}", name),
              f"{name}.conf is not a conffile")
        set_flags(root, name, {"listen": "127.0.0.1:0", "metrics-listen": "127.0.0.1:0", "port-file": f"{state}/ports"})
    set_flags(root, "kdn-node", {"memory-bytes": "256MiB", "disk-bytes": "2GiB"})
    check(not processes_of(root), "something was started although no init is there")
    units = {name: Unit(root / f"/lib/systemd/system/{name}.service") for name in DAEMONS}

    say("kdn-node serves, stops, and has what it acknowledged")
    node = Daemon(root, units["kdn-node"], "kdn-node")
    node.check_privileges()
    print(run([client, "node", node.addresses[0]]), end="")
    check("kdn_tier_chunks" in scrape(node.addresses[1]), "the node has no metrics")
    node.stop()
    node = Daemon(root, units["kdn-node"], "kdn-node")
    print(run([client, "--only", "fetch", "node", node.addresses[0]]), end="")
    node.stop()

    say("kdn-placement and kdn-node are a cluster")
    placement = Daemon(root, units["kdn-placement"], "kdn-placement")
    placement.check_privileges()
    set_flags(root, "kdn-node", {"placement": placement.addresses[0], "node-id": "n1"})
    node = Daemon(root, units["kdn-node"], "kdn-node")
    for _ in range(300):
        if re.search(r'^kdn_cluster_partitions\{state="owned"\} [1-9]', scrape(node.addresses[1]), re.M):
            break
        time.sleep(0.1)
    else:
        raise Failed(f"the node was given no partitions in 30 s:\n{node.output()}\n{placement.output()}")
    print(run([client, "cluster", placement.addresses[0]]), end="")

    say("an upgrade keeps the flag files")
    before = (root / "/etc/kdn/kdn-node.conf").read_text()
    root.sh("dpkg", "-i", *packages)
    check((root / "/etc/kdn/kdn-node.conf").read_text() == before, "the upgrade changed kdn-node.conf")
    print(run([client, "--only", "fetch", "cluster", placement.addresses[0]]), end="")

    say("the tutorial")
    tutorial = pathlib.Path(__file__).resolve().parents[2] / "integration/system/tutorial_test.py"
    print(run([sys.executable, "-B", tutorial, "--keep-ports", "--shell", f"chroot {root.path} bash"]), end="")

    say("removal ends them, and leaves flag files and data")
    root.sh("dpkg", "-r", *DAEMONS)
    check(not processes_of(root), f"still running: {processes_of(root)}")
    for daemon in [node, placement]:
        check(daemon.process.wait(10) == 0, f"{daemon.name} was not stopped gracefully:\n{daemon.output()}")
    for name, state in DAEMONS.items():
        check((root / f"/etc/kdn/{name}.conf").exists(), f"removal took {name}.conf")
        check((root / state).exists(), f"removal took {state}")
        left = [f for f in files[name] if (root / f).is_file() and not f.startswith("/etc/kdn/")]
        check(not left, f"removal left {left}")

    say("a purge takes those as well")
    root.sh("dpkg", "-P", *DAEMONS)
    for name, state in DAEMONS.items():
        check(not (root / state).exists(), f"the purge left {state}")
        check(not [f for f in root.path.glob(f"etc/systemd/system/**/{name}.service")], "the purge left the service")
    check(not (root / "/etc/kdn").exists(), "the purge left /etc/kdn")


def test_client_dev(root, package):
    say("installing kdn-client-dev and a compiler")
    root.sh("apt-get", "install", "-y", "-qq", "--no-install-recommends", package, "g++", "cmake", "make", "pkg-config")
    say("building its example by CMake and by pkg-config")
    shutil.copytree(root / "/usr/share/doc/kdn-client-dev/examples", root / "/var/tmp/example")
    root.sh("sh", "-c", "cd /var/tmp/example && cmake -S . -B build && cmake --build build")
    root.sh("sh", "-c", "cd /var/tmp/example && "
            "g++ -std=c++20 store_fetch.cc -o by_pkg_config $(pkg-config --cflags --libs kdn-client)")
    for number, program in enumerate(["build/store_fetch", "by_pkg_config"]):
        print(root.sh(f"/var/tmp/example/{program}", "embedded", f"/var/tmp/example/store{number}"), end="")


def inside(args):
    packages = {path.name.split("_")[0]: path.resolve() for path in args.packages.glob("*.deb")}
    for name in [*DAEMONS, "kdnctl", "kdn-engine", "kdn-client-dev"]:
        check(name in packages, f"{args.packages} has no package {name}; ./dev package makes it")
    root = CleanRoot(args.root_tar)
    try:
        run(["mkdir", "-p", root / "/var/tmp/debs"])
        for path in packages.values():
            shutil.copy(path, root / "/var/tmp/debs" / path.name)
        inner = {name: f"/var/tmp/debs/{path.name}" for name, path in packages.items()}
        test_daemons(root, [inner[name] for name in inner if name != "kdn-client-dev"], args.client)
        if args.client_dev:
            test_client_dev(root, inner["kdn-client-dev"])
    finally:
        # Before unmounting; children of this process namespace, whatever started them.
        for entry in processes_of(root):
            os.kill(int(entry.split()[0]), signal.SIGKILL)
        time.sleep(0.2)
        root.remove()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=pathlib.Path, required=True)
    parser.add_argument("--client", type=pathlib.Path, required=True)
    parser.add_argument("--root-tar", type=pathlib.Path, required=True)
    parser.add_argument("--client-dev", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        check(os.geteuid() == 0, "needs root, for namespaces and chroot")
        check(shutil.which("mmdebstrap"), "needs mmdebstrap; apt-get install mmdebstrap")
        if not args.inside:
            if not args.root_tar.exists():
                make_root_tar(args.root_tar)
            os.execvp("unshare", ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
                                  sys.executable, __file__, *sys.argv[1:], "--inside"])
        inside(args)
    except Failed as failure:
        print(f"install_test: {failure}", file=sys.stderr)
        return 1
    print("install test passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
