#!/usr/bin/env python3
"""kdn-client-dev, installed to a folder: another project builds against it, by CMake and by pkg-config, and runs."""

import os
import re
import subprocess
import unittest

import deployment
from deployment import ROOT, temporary_folder, tool

EXAMPLE = ROOT / "deploy/test/consumer"


def run(argv, **kwargs):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=240, **kwargs)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, argv))}: {done.returncode}\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


class ClientPackageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = temporary_folder(cls.addClassCleanup)
        # Moved after it was installed: nothing in it may know where it was.
        run([tool("cmake", "cmake"), "--install", deployment.build.folder, "--component", "kdn-client-dev", "--prefix",
             cls.folder / "installed"])
        cls.prefix = cls.folder / "prefix"
        (cls.folder / "installed").rename(cls.prefix)
        cls.environment = {**os.environ, "PKG_CONFIG_PATH": ":".join(
            str(path.parent) for path in cls.prefix.rglob("kdn-client.pc"))}

    def run_example(self, program):
        out = run([program, "embedded", temporary_folder(self.addCleanup) / "store"])
        self.assertIn("fetched 4 chunks", out)

    def test_by_cmake(self):
        build = self.folder / "build"
        run(["cmake", "-S", EXAMPLE, "-B", build, f"-DCMAKE_PREFIX_PATH={self.prefix}",
             f"-DCMAKE_CXX_COMPILER={deployment.build.compiler}", "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror"])
        run(["cmake", "--build", build])
        self.run_example(build / "store_fetch")

    def test_by_pkg_config(self):
        flags = run(["pkg-config", "--cflags", "--libs", "kdn-client"], env=self.environment).split()
        program = self.folder / "by_pkg_config"
        run([deployment.build.compiler, "-std=c++20", EXAMPLE / "store_fetch.cc", "-o", program, *flags])
        self.run_example(program)

    def test_public_headers_are_all_there(self):
        headers = (deployment.build.folder / "deploy/client/headers.txt").read_text().split()
        installed = sorted(str(p.relative_to(self.prefix / "include/kdn"))
                           for p in (self.prefix / "include/kdn").rglob("*.h"))
        self.assertEqual(sorted(headers), installed)
        self.assertIn("kdn-client/client.h", headers)
        flags = run(["pkg-config", "--cflags", "kdn-client"], env=self.environment).split()
        # Each twice: guards hold. In the order of their names, so that what one needs does not come before it by luck of
        # an application's order.
        source = self.folder / "all.cc"
        source.write_text("".join(f'#include "{h}"\n' for h in headers * 2))
        run([deployment.build.compiler, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", *flags, source])

    def test_nothing_tells_where_it_was_built(self):
        for path in self.prefix.rglob("*"):
            if path.suffix in (".cmake", ".pc"):
                self.assertNotIn(str(ROOT), path.read_text(), path)
                self.assertFalse(re.search(r"(?m)/usr/local|^[^#\n]*@\w+@", path.read_text()), path)

    def test_another_minor_version_is_not_taken_for_this(self):
        project = self.folder / "other"
        project.mkdir()
        (project / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.25)\nproject(other LANGUAGES C CXX)\nfind_package(kdn 0.99 REQUIRED)\n")
        with self.assertRaises(AssertionError) as refused:
            run(["cmake", "-S", project, "-B", project / "build", f"-DCMAKE_PREFIX_PATH={self.prefix}"])
        self.assertIn("0.99", str(refused.exception))


if __name__ == "__main__":
    deployment.main()
