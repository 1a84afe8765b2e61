"""Hosts on a network that can be cut, slow and lossy: network namespaces, each with a TUN device, and a thread that
carries packets between them. (Linux's netem is not in every kernel, and nothing here depends on it.)

Host 0 is the test's own namespace. Needs root."""

import ctypes
import fcntl
import heapq
import ipaddress
import os
import random
import select
import struct
import subprocess
import threading
import time
import unittest

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
CLONE_NEWNET = 0x40000000


def setns(path):
    with open(path) as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {path}")


class Network:
    def __init__(self, hosts, seed=0):
        if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
            raise unittest.SkipTest("NOT TESTED: network namespaces need root and /dev/net/tun")
        self.random = random.Random(seed)
        self.delay, self.loss = 0.0, 0.0  # seconds; share of packets
        self.cuts = set()  # pairs of hosts between which nothing passes
        self.carried = self.lost = self.cut_off = 0
        self.names, self.tuns, self.closing = [None], [], False
        self.net = f"10.213.{os.getpid() % 256}"
        try:
            for i in range(hosts):
                self.add(i)
        except BaseException:
            self.close()
            raise
        self.thread = threading.Thread(target=self.carry, daemon=True)
        self.thread.start()

    def add(self, i):
        inside = ()
        if i > 0:
            self.names.append(f"lw{os.getpid()}-{i}")
            self.ip("netns", "add", self.names[i])
            inside = ("-n", self.names[i])
            self.ip(*inside, "link", "set", "lo", "up")
        device = f"lw{os.getpid()}-{i}"
        # A thread's namespace is its own: this one's stays.
        thread = threading.Thread(target=self.open, args=(i, device))
        thread.start()
        thread.join()
        assert len(self.tuns) == i + 1, f"no TUN device for host {i}"
        self.ip(*inside, "addr", "add", f"{self.address(i)}/24", "dev", device)
        self.ip(*inside, "link", "set", device, "up")

    def open(self, i, device):
        if i > 0:
            setns(f"/run/netns/{self.names[i]}")
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
        self.tuns.append(tun)

    @staticmethod
    def ip(*arguments):
        subprocess.run(["ip", *arguments], check=True)

    def address(self, i):
        return f"{self.net}.{i + 1}"

    def inside(self, i):
        """What a command begins with that runs on host i."""
        return ("ip", "netns", "exec", self.names[i]) if i > 0 else ()

    def cut(self, *pairs):
        self.cuts = {frozenset(pair) for pair in pairs}

    def carry(self):
        waiting, count = [], 0  # (when, number, host, packet)
        prefix = ipaddress.ip_address(self.address(0)).packed[:3]
        while not self.closing:
            pause = 0.2
            if waiting:
                pause = min(pause, max(0, waiting[0][0] - time.monotonic()))
            for tun in select.select(self.tuns, [], [], pause)[0]:
                source = self.tuns.index(tun)
                for _ in range(64):
                    try:
                        packet = os.read(tun, 65536)
                    except BlockingIOError:
                        break
                    target = packet[19] - 1
                    if packet[0] >> 4 != 4 or packet[16:19] != prefix or not (
                            0 <= target < len(self.tuns)):
                        continue
                    if frozenset((source, target)) in self.cuts:
                        self.cut_off += 1
                    elif self.random.random() < self.loss:
                        self.lost += 1
                    else:
                        count += 1
                        heapq.heappush(waiting, (time.monotonic() + self.delay, count, target, packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, target, packet = heapq.heappop(waiting)
                self.carried += 1
                try:
                    os.write(self.tuns[target], packet)
                except OSError:
                    self.lost += 1  # no room, as at a real device

    def close(self):
        self.closing = True
        if hasattr(self, "thread"):
            self.thread.join()
        for tun in self.tuns:
            os.close(tun)
        for name in self.names[1:]:
            subprocess.run(["ip", "netns", "del", name], check=False)
