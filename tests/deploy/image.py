"""Longwave's CPU image, built of deploy/Dockerfile by buildah on a base that debootstrap makes, and run.

It is built in full, compiler and all, with LONGWAVE_TEST_IMAGE=full. Otherwise the program of this build is taken in
place of the build stage's, where it is one for an image without CUDA. What runs it is podman, or, where no OCI runtime
works (as in most containers), namespaces of our own: root file system read-only, no capability, user 10001.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ.get("LONGWAVE_SOURCE", pathlib.Path(__file__).parents[2]))
PROGRAM = os.environ.get("LONGWAVE", str(SOURCE / "build" / "longwave"))
TAG = "localhost/longwave:test"
# In the container: what a pod of the chart has, a writable /tmp and /data, and nothing else.
OWN_NAMESPACES = """set -e
root=$1 data=$2
shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs tmpfs "$root/tmp"
chmod 1777 "$root/tmp"
mount --bind "$data" "$root/data"
mount --rbind /proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir -m 1777 "$root/dev/shm"
for device in null zero urandom; do touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
exec chroot "$root" /usr/bin/setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs --bounding-set=-all \
  --inh-caps=-all "$@"
"""


def skip(why):
    raise unittest.SkipTest(f"NOT TESTED: {why}")


def check(*command, **options):
    done = subprocess.run([str(part) for part in command], text=True, capture_output=True, **options)
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))[:300]}: {done.stdout[-3000:]} {done.stderr[-3000:]}")
    return done.stdout


class Image:
    def __init__(self):
        if os.geteuid() != 0:
            skip("building an image needs root")
        for tool in ("buildah", "debootstrap", "unshare"):
            if not shutil.which(tool):
                skip(f"there is no {tool}")
        self.full = os.environ.get("LONGWAVE_TEST_IMAGE") == "full"
        if not self.full and re.search("libcu(da|blas|fft)|libnccl", check("ldd", PROGRAM)):
            skip("the program here needs CUDA's libraries, which are no packages of Debian: "
                 "LONGWAVE_TEST_IMAGE=full builds the image's own, in ten minutes or more")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="longwave-image-", dir=os.environ.get("TMPDIR", "/var/tmp")))
        self.containers = []

    def buildah(self, *arguments):
        return check("buildah", "--root", self.folder / "store", "--runroot", self.folder / "run", *arguments)

    def make(self, name, content):
        """An image of the files in a folder."""
        container = self.buildah("from", "scratch").strip()
        self.buildah("add", container, content, "/")
        self.buildah("commit", container, name)
        self.buildah("rm", container)

    def base(self):
        """Debian's smallest, of where apt has it from."""
        addresses = check("apt-get", "--print-uris", "update")
        mirror = re.search(r"^'(\S+)/dists/bookworm/main/binary-", addresses, re.M)
        if not mirror:
            skip("apt has no source of Debian 12")
        environment = dict(os.environ)
        for variable in ("http", "https"):
            found = re.search("'(.*)'", check("apt-config", "shell", "x", f"Acquire::{variable}::Proxy"))
            if found:
                environment.setdefault(f"{variable}_proxy", found[1])
        check("debootstrap", "--variant=minbase", "bookworm", self.folder / "base", mirror[1], env=environment)
        self.make("localhost/base:12", self.folder / "base")

    def build(self):
        self.base()
        dockerfile = (SOURCE / "deploy" / "Dockerfile").read_text()
        if not self.full:
            built = self.folder / "built" / "build"
            built.mkdir(parents=True)
            check("strip", "-o", built / "longwave", PROGRAM)
            (built / "packages").write_text(check("sh", SOURCE / "deploy" / "runtime_packages.sh", PROGRAM))
            self.make("localhost/built:1", self.folder / "built")
            assert dockerfile.count("from=cpu-build") == 2, dockerfile
            dockerfile = dockerfile.replace("from=cpu-build", "from=localhost/built:1")
        (self.folder / "Dockerfile").write_text(dockerfile)
        self.buildah("build", "--isolation", "chroot", "--build-arg", "CPU_BASE=localhost/base:12", "--build-arg",
                     "REVISION=test", "--target", "cpu", "--tag", TAG, "--file", self.folder / "Dockerfile", SOURCE)
        self.container = self.buildah("from", TAG).strip()
        self.root = pathlib.Path(self.buildah("mount", self.container).strip())

    def config(self):
        return json.loads(self.buildah("inspect", "--type", "image", TAG))["OCIv1"]["config"]

    def command(self, data, *arguments):
        """The command that runs `arguments` in the image, on the host's network."""
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", OWN_NAMESPACES, "sh", str(self.root),
                str(data), *map(str, arguments)]

    def close(self):
        subprocess.run(["buildah", "--root", self.folder / "store", "--runroot", self.folder / "run", "rm", "--all"],
                       capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)
