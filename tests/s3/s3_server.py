#!/usr/bin/python3
"""A real S3 server for tests: OpenStack Swift and its S3 API (python3-swift), all of it in this process.

  /usr/bin/python3 s3_server.py BUCKET...

Signatures and payload hashes are checked. Objects are in memory; the lists of them in a folder that
goes with the process. Prints "listening on PORT" once the buckets are there, and ends when its
standard input does. Key "test:tester", secret "testing", region "us-east-1".
"""
import eventlet

eventlet.monkey_patch()

import os
import shutil
import sys
import tempfile

from eventlet import wsgi
from swift.account import server as account_server
from swift.common import storage_policy, utils
from swift.common.middleware import catch_errors, gatekeeper, listing_formats, slo, tempauth
from swift.common.middleware.s3api import s3api
from swift.common.ring import RingBuilder
from swift.common.swob import Request
from swift.container import server as container_server
from swift.obj import mem_server
from swift.proxy import server as proxy_server


class Silent:
    """A logger of all that Swift calls on one."""
    thread_locals = (None, None)
    txn_id = client_ip = None

    def __getattr__(self, name):
        return lambda *args, **options: None


class Cache:
    """What middleware takes for memcached."""

    def __init__(self, app):
        self.app, self.values = app, {}

    def __call__(self, environ, start_response):
        environ["swift.cache"] = self
        return self.app(environ, start_response)

    def set(self, key, value, **options):
        self.values[key] = value

    def get(self, key, **options):
        return self.values.get(key)

    def delete(self, key, **options):
        self.values.pop(key, None)


def listen():
    return eventlet.listen(("127.0.0.1", 0))


def serve(socket, app):
    eventlet.spawn(wsgi.server, socket, app, Silent(), log_output=False, keepalive=True)


def save_ring(folder, name, port):
    """One device, no copies."""
    builder = RingBuilder(1, 1, 0)
    builder.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1.0, "ip": "127.0.0.1",
                     "port": port, "device": "disk"})
    builder.rebalance()
    builder.get_ring().save(os.path.join(folder, name + ".ring.gz"))


def pipeline(app):
    """What a request passes before the proxy, the last one first."""
    for factory, conf in (
            (slo.filter_factory, {"concurrency": "1"}),
            (tempauth.filter_factory, {"user_test_tester": "testing .admin"}),
            (s3api.filter_factory, {"location": "us-east-1", "s3_acl": "no"}),
            (listing_formats.filter_factory, {}),
            (gatekeeper.filter_factory, {}),
            (catch_errors.filter_factory, {})):
        app = factory(conf)(app)
    return Cache(app)


def start(folder, buckets):
    os.makedirs(os.path.join(folder, "disk"))
    conf = {"swift_dir": folder, "devices": folder, "mount_check": "false", "log_name": "test",
            "account_autocreate": "true", "workers": "0", "max_clients": "100"}
    utils.HASH_PATH_PREFIX = utils.HASH_PATH_SUFFIX = b"longwave"
    for name, server in (("account", account_server.AccountController),
                         ("container", container_server.ContainerController),
                         ("object", mem_server.ObjectController)):
        socket = listen()
        save_ring(folder, name, socket.getsockname()[1])
        serve(socket, server(conf, Silent()))
    storage_policy.reload_storage_policies()
    proxy = proxy_server.Application(conf, Silent())
    for bucket in buckets:
        made = Request.blank("/v1/AUTH_test/" + bucket, method="PUT").get_response(proxy)
        assert made.is_success, made.status
    socket = listen()
    serve(socket, pipeline(proxy))
    return socket.getsockname()[1]


def main():
    folder = tempfile.mkdtemp(prefix="longwave-s3-")
    try:
        print("listening on %d" % start(folder, sys.argv[1:]), flush=True)
        while eventlet.tpool.execute(sys.stdin.read, 1):
            pass
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
