#!/usr/bin/env python3
"""A TCP relay on loopback that writes down every HTTP request that passes.

    record.py HOST:PORT FILE

Prints its own port, then relays to HOST:PORT until it is ended. FILE gets a line of JSON a request:
the connection it came by, its method and target, its headers in their order and spelling. Only for
requests without a body, which is all that a substituter is asked.
"""

import json
import socket
import sys
import threading

# Nix's requests are some hundred bytes.
HEAD_BYTES_MAX = 64 << 10


def pump(source, sink, seen=lambda piece: None):
    try:
        while piece := source.recv(1 << 16):
            seen(piece)
            sink.sendall(piece)
    except OSError:
        pass
    for end, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
        try:
            end.shutdown(how)
        except OSError:
            pass


class Recorder:
    def __init__(self, path):
        self.file = open(path, "w", encoding="utf-8")
        self.lock = threading.Lock()

    def connection(self, number):
        pending = bytearray()

        def seen(piece):
            pending.extend(piece)
            while (end := pending.find(b"\r\n\r\n")) >= 0:
                self.write(number, bytes(pending[:end]).decode("latin-1"))
                del pending[: end + 4]
            if len(pending) > HEAD_BYTES_MAX:
                raise OSError("a head without an end")

        return seen

    def write(self, number, head):
        first, *lines = head.split("\r\n")
        method, target, version = first.split(" ")
        headers = [line.split(": ", 1) for line in lines]
        request = {"connection": number, "method": method, "target": target}
        request |= {"version": version, "headers": headers}
        with self.lock:
            self.file.write(json.dumps(request) + "\n")
            self.file.flush()


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    recorder = Recorder(sys.argv[2])
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    number = 0
    while True:
        client, _ = listener.accept()
        number += 1
        box = socket.create_connection((host, int(port)))
        upward = (client, box, recorder.connection(number))
        threading.Thread(target=pump, args=upward, daemon=True).start()
        threading.Thread(target=pump, args=(box, client), daemon=True).start()


main()
