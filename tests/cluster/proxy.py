"""A proxy between a client and a server that cuts connections, or speaks TLS to the client."""

import socket
import threading


class Proxy:
    """Forwards to HOST:PORT. `cut(number)`: of connection 0, 1, ... the most bytes that get back
    to the client before it is closed; None: all."""

    def __init__(self, target, cut=lambda number: None, tls=None):
        host, port = target.rsplit(":", 1)
        self.target, self.cut, self.tls, self.seen = (host, int(port)), cut, tls, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"{'https' if tls else 'http'}://localhost:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.listener.close()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client, self.seen), daemon=True).start()
            self.seen += 1

    def serve(self, client, number):
        try:
            if self.tls:
                client = self.tls.wrap_socket(client, server_side=True)
            with client, socket.create_connection(self.target) as server:
                back = threading.Thread(target=self.pump, args=(client, server, None), daemon=True)
                back.start()
                self.pump(server, client, self.cut(number))
                back.join()
        except OSError:  # a client that does not trust the certificate, say
            client.close()

    @staticmethod
    def pump(source, sink, most):
        """Bytes from one to the other until an end, or until `most` have passed."""
        passed = 0
        try:
            while most is None or passed < most:
                block = source.recv(65536)
                if not block:
                    break
                block = block if most is None else block[:most - passed]
                sink.sendall(block)
                passed += len(block)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
