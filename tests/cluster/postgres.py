"""A PostgreSQL server for tests: in a folder of its own, on a socket there, ended by its process id."""

import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile
import unittest

from cluster import PATIENCE, wait_for


def programs():
    """The folder of the highest version's programs."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"),
                   key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    if os.environ.get("LONGWAVE_TEST_POSTGRES") == "required":
        raise AssertionError("there is no /usr/lib/postgresql/*/bin/initdb")
    raise unittest.SkipTest("NOT TESTED: there is no /usr/lib/postgresql/*/bin/initdb")


class Postgres:
    def __init__(self, *settings):
        """`settings`: "fsync=on", say; tests do without the flushes."""
        self.settings = ["listen_addresses=", "fsync=off", "max_connections=60", *settings]
        self.programs = programs()
        self.folder = tempfile.mkdtemp(prefix="longwave-pg-")
        self.user = {}
        if os.geteuid() == 0:  # as which it does not run
            user = pwd.getpwnam("postgres")
            self.user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        self.run("initdb", "-D", f"{self.folder}/data", "-U", "longwave", "--auth=trust",
                 "--encoding=UTF8", "--locale=C", "--no-sync")
        self.start()
        self.run("createdb", "-h", self.folder, "-U", "longwave", "longwave")
        self.uri = f"postgresql://longwave@/longwave?host={self.folder}"

    def run(self, program, *arguments):
        done = subprocess.run([self.programs / program, *arguments], cwd="/", timeout=PATIENCE,
                              capture_output=True, text=True, **self.user)
        assert done.returncode == 0, (program, done.stdout, done.stderr)
        return done.stdout

    def start(self):
        with open(f"{self.folder}/server.log", "a") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", f"{self.folder}/data", "-k", self.folder,
                 *(part for setting in self.settings for part in ("-c", setting))],
                cwd="/", stdout=log, stderr=log, **self.user)
        wait_for("PostgreSQL", lambda: subprocess.run(
            [self.programs / "pg_isready", "-q", "-h", self.folder], cwd="/").returncode == 0)

    def stop(self, number=signal.SIGINT):
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(timeout=PATIENCE)

    def close(self):
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def query(self, sql):
        """Rows of text."""
        out = self.run("psql", self.uri, "-qAtF", "\t", "-c", sql)
        return [line.split("\t") for line in out.splitlines()]
