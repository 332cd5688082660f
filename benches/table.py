"""Measures larder against its neighbours and prints one Markdown table.

Every row is a ratio taken in one run: the two sides in turn (A B B A A B ...), at least five
pairs, median and spread of the pair-wise ratios. Same bytes, same zstd level, settings as shipped.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

LEVEL = 3  # larder's default, and what the other side is told to use
WRK_SECONDS = 3
WRK_CONNECTIONS = 32
NAR_CLIENTS = 4
PUSHERS = 8
DOWNLOADS = 100
IDLE_CONNECTIONS = 2000
NIX32 = "0123456789abcdfghijklmnpqrsvwxyz"


class Bench:
    """What all rows share: the work folder, the binary, the store paths, the table so far."""

    def __init__(self, options):
        self.work = Path(options.work).resolve()
        self.larder = str(Path(options.larder).resolve())
        self.pairs = options.pairs
        self.rows = []
        self.real = (self.work / "real.paths").read_text().split()
        self.tiny = (self.work / "tiny.paths").read_text().split()
        self.env = {**os.environ, "NIX_CONF_DIR": str(self.work / "nix-conf"), "NIX_REMOTE": ""}

    def folder(self, name):
        """An empty folder below the work folder."""
        path = self.work / "run" / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def compare(self, name, unit, ours, theirs, aim):
        """Runs both sides in turn and adds a row; higher is better unless the unit is a time."""
        pairs = []
        for turn in range(self.pairs + 1):
            order = (ours, theirs) if turn % 2 == 0 else (theirs, ours)
            values = {side: side() for side in order}
            if turn > 0:  # the first pair warms both sides
                pairs.append((values[ours], values[theirs]))
        ratios = [a / b for a, b in pairs]
        self.add(
            name,
            f"{statistics.median(a for a, _ in pairs):,.2f} {unit}",
            f"{statistics.median(b for _, b in pairs):,.2f} {unit}",
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})",
            aim,
        )

    def add(self, *cells):
        self.rows.append(cells)
        print("| " + " | ".join(cells) + " |", flush=True)


class Box:
    """A running `larder serve` on a data folder of its own."""

    def __init__(self, bench, data):
        self.data = data
        self.bench = bench
        self.process = subprocess.Popen(
            [bench.larder, "serve", "--json", "--no-mdns", "--data", str(data), "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE, stderr=open(data.parent / "box.log", "ab"), text=True, env=bench.env,
        )
        self.summary = json.loads(self.process.stdout.readline())
        self.http = f"http://{self.summary['http']}"
        self.host = self.summary["quic"]
        token = Path(self.summary["admin_token_file"]).read_text().strip()
        home = data.parent / "home"
        self.client_env = {**bench.env, "LARDER_AUTH_TOKEN": token, "HOME": str(home),
                           "XDG_CONFIG_HOME": str(home), "XDG_DATA_HOME": str(home)}

    def push(self, paths, peak=None):
        """Pushes `paths`; the seconds it took. `peak` is called with the client's process id."""
        started = time.monotonic()
        client = subprocess.Popen(
            [self.bench.larder, "push", "main", "--host", self.host, "--json"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.client_env,
        )
        if peak:
            peak(client.pid)
        out, err = client.communicate("\n".join(paths) + "\n")
        seconds = time.monotonic() - started
        if client.returncode != 0:
            raise SystemExit(f"push failed ({client.returncode}): {err}")
        return seconds, json.loads(out.strip().splitlines()[-1])

    def run(self, *arguments):
        subprocess.run([self.bench.larder, *arguments, "--host", self.host], env=self.client_env,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(timeout=60) != 0:
            raise SystemExit("the box did not stop cleanly")


@contextlib.contextmanager
def box(bench, name):
    started = Box(bench, bench.folder(name) / "data")
    try:
        yield started
    finally:
        started.stop()


class Nginx:
    """Debian's nginx with two workers, serving one folder."""

    def __init__(self, bench, root):
        folder = bench.folder("nginx")
        self.port = free_port()
        config = folder / "nginx.conf"
        config.write_text(f"""
            daemon off; worker_processes 2; pid {folder}/pid; error_log {folder}/error.log;
            user root;
            events {{ worker_connections 1024; }}
            http {{
              access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000;
              open_file_cache max=10000 inactive=60s; default_type application/octet-stream;
              server {{ listen 127.0.0.1:{self.port}; root {root}; }}
            }}""")
        self.process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(config)],
                                        stderr=subprocess.DEVNULL)
        self.http = f"http://127.0.0.1:{self.port}"
        wait_for(lambda: urllib.request.urlopen(self.http + "/nix-cache-info").read())

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=30)


def free_port():
    import socket
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(attempt, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def rss_anon_mib(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", text).group(1)) / 1024


class Peak:
    """The most anonymous memory a process had, looked at every 10 ms."""

    def __init__(self, pid):
        self.mib = 0.0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch, args=(pid,))
        self.thread.start()

    def watch(self, pid):
        with contextlib.suppress(OSError, AttributeError):
            while not self.over.wait(0.01):
                self.mib = max(self.mib, rss_anon_mib(pid))

    def stop(self):
        self.over.set()
        self.thread.join()
        return self.mib


def wrk(bench, base, names):
    """Requests a second on a random choice of `names`, by 32 connections."""
    script = bench.work / "run" / "wrk.lua"
    script.write_text("local names = {" + ",".join(f'"{name}"' for name in names) + "}\n"
                      "request = function() return wrk.format('GET', '/' .. names[math.random(#names)]) end\n")
    out = subprocess.run(["wrk", "-t1", f"-c{WRK_CONNECTIONS}", f"-d{WRK_SECONDS}s", "-s", str(script), base],
                         capture_output=True, text=True, check=True).stdout
    if "Socket errors" in out:
        raise SystemExit(out)
    return float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)), "Non-2xx" in out


def hits(bench, base, hashes):
    rate, strange = wrk(bench, base, [f"{name}.narinfo" for name in hashes])
    if strange:
        raise SystemExit(f"{base} did not answer every hit with 200")
    return rate


def misses(bench, base):
    names = ["".join(random.choices(NIX32, k=32)) + ".narinfo" for _ in range(20_000)]
    rate, strange = wrk(bench, base, names)
    if not strange:
        raise SystemExit(f"{base} answered misses with 2xx")
    return rate


def read_nars(bench, base, urls, expected_bytes):
    """Seconds that four clients take to read all of `urls`, each its share; sizes are checked."""
    clients = []
    started = time.monotonic()
    for share in range(NAR_CLIENTS):
        config = bench.work / "run" / f"curl-{share}"
        config.write_text("".join(f'url = "{base}/{url}"\noutput = "/dev/null"\n' for url in urls[share::NAR_CLIENTS]))
        clients.append(subprocess.Popen(["curl", "-sS", "--fail", "-K", str(config), "-w", "%{size_download}\n"],
                                        stdout=subprocess.PIPE, text=True))
    got = sum(int(size) for client in clients for size in client.communicate()[0].split())
    seconds = time.monotonic() - started
    if got != expected_bytes:
        raise SystemExit(f"{base} gave {got} bytes, not {expected_bytes}")
    return seconds


def mirror(base, hashes, into):
    """Saves what the box serves as plain files, so that nginx serves the very same bytes."""
    (into / "nar").mkdir()
    (into / "nix-cache-info").write_bytes(urllib.request.urlopen(f"{base}/nix-cache-info").read())
    urls, total = [], 0
    for name in hashes:
        narinfo = urllib.request.urlopen(f"{base}/{name}.narinfo").read()
        (into / f"{name}.narinfo").write_bytes(narinfo)
        fields = dict(line.split(": ", 1) for line in narinfo.decode().splitlines())
        nar = urllib.request.urlopen(f"{base}/{fields['URL']}").read()
        if len(nar) != int(fields["FileSize"]):
            raise SystemExit(f"{fields['URL']} is not as long as its FileSize")
        (into / fields["URL"]).write_bytes(nar)
        if fields["URL"] not in urls:
            urls.append(fields["URL"])
            total += len(nar)
    return urls, total


def reading_rows(bench):
    with box(bench, "reading") as larder:
        larder.push(bench.real)
        hashes = [Path(path).name[:32] for path in bench.real]
        root = bench.folder("mirror")
        urls, total = mirror(larder.http, hashes, root)
        nginx = Nginx(bench, root)
        try:
            bench.compare("narinfo hits, 32 connections (nginx)", "/s",
                          lambda: hits(bench, larder.http, hashes), lambda: hits(bench, nginx.http, hashes), "≥ 0.6")
            bench.compare("narinfo misses, 32 connections (nginx)", "/s",
                          lambda: misses(bench, larder.http), lambda: misses(bench, nginx.http), "≥ 0.6")
            bench.compare(f"{len(urls)} NARs, {total / 1e6:,.0f} MB, 4 clients (nginx)", "MB/s",
                          lambda: total / 1e6 / read_nars(bench, larder.http, urls, total),
                          lambda: total / 1e6 / read_nars(bench, nginx.http, urls, total), "≥ 0.6")
        finally:
            nginx.stop()


def nix_copy(bench, paths, into):
    """Seconds of `nix copy` of the same paths to a folder, with zstd at the same level."""
    home = bench.folder("nix-home")
    started = time.monotonic()
    subprocess.run(["nix", "--extra-experimental-features", "nix-command", "copy", "--to",
                    f"file://{into}?compression=zstd&compression-level={LEVEL}", *paths],
                   check=True, env={**bench.env, "HOME": str(home)}, stderr=subprocess.DEVNULL)
    return time.monotonic() - started


def push_once(bench, paths):
    with box(bench, "push") as larder:
        seconds, summary = larder.push(paths)
        if summary["stored"] + summary["known"] < len(paths):
            raise SystemExit(f"not everything was stored: {summary}")
    os.sync()
    return seconds


def copy_once(bench, paths):
    seconds = nix_copy(bench, paths, bench.folder("copy"))
    os.sync()
    return seconds


def pushing_rows(bench):
    size = sum(int(line) for line in subprocess.run(
        ["nix-store", "--query", "--size", *bench.real], capture_output=True, text=True, check=True,
        env=bench.env).stdout.split())
    bench.compare(f"push of {len(bench.real)} real paths, {size / 1e6:,.0f} MB (nix copy to a folder)", "s",
                  lambda: push_once(bench, bench.real), lambda: copy_once(bench, bench.real), "≤ 1.0")
    bench.compare(f"push of {len(bench.tiny)} tiny paths (nix copy to a folder)", "s",
                  lambda: push_once(bench, bench.tiny), lambda: copy_once(bench, bench.tiny), "≤ 1.0")
    with box(bench, "repush") as larder:
        larder.push(bench.real)
        into = bench.folder("recopy")
        nix_copy(bench, bench.real, into)
        bench.compare(f"push of {len(bench.real)} known paths again (nix copy again)", "s",
                      lambda: larder.push(bench.real)[0], lambda: nix_copy(bench, bench.real, into), "≤ 1.0")
        ours, theirs = stored_bytes(larder.data), stored_bytes(into)
        bench.add("stored bytes of the real paths (zstd files of nix copy)", f"{ours / 1e6:,.0f} MB",
                  f"{theirs / 1e6:,.0f} MB", f"{ours / theirs:.2f}", "")


def stored_bytes(folder):
    return sum(entry.stat().st_size for entry in Path(folder).rglob("*") if entry.is_file())


def memory_rows(bench):
    with box(bench, "memory") as larder:
        bench.add("anonymous memory, idle, new box", f"{rss_anon_mib(larder.process.pid):.1f} MiB", "", "", "≤ 20 MiB")
        peak, clients = Peak(larder.process.pid), []
        larder.push(bench.real, lambda pid: clients.append(Peak(pid)))
        bench.add("anonymous memory, peak of the box in the push", f"{peak.stop():.1f} MiB", "", "", "≤ 64 MiB")
        bench.add("anonymous memory, peak of the client in the push", f"{clients[0].stop():.1f} MiB", "", "", "≤ 128 MiB")
        bench.add("anonymous memory, idle after the push", f"{rss_anon_mib(larder.process.pid):.1f} MiB", "", "", "")
    with box(bench, "load") as larder:
        bench.add(f"anonymous memory, peak in {PUSHERS} pushes and {DOWNLOADS} downloads",
                  f"{under_load(bench, larder):.1f} MiB", "", "", "≤ 64 MiB")
    with box(bench, "idle-connections") as larder:
        held = idle_connections(larder)
        bench.add(f"anonymous memory, {len(held):,} idle connections",
                  f"{rss_anon_mib(larder.process.pid):.1f} MiB", "", "", "≤ 64 MiB")
        for connection in held:
            connection.close()


def under_load(bench, larder):
    """The peak in pushes of half of the paths to caches of their own, and downloads of the others."""
    half = len(bench.real) // 2
    there, new = bench.real[:half], bench.real[half:]
    larder.push(there)
    caches = [f"load{number}" for number in range(PUSHERS)]
    for cache in caches:
        larder.run("cache", "create", cache)
    urls = []
    for path in there:
        narinfo = urllib.request.urlopen(f"{larder.http}/{Path(path).name[:32]}.narinfo").read().decode()
        fields = dict(line.split(": ", 1) for line in narinfo.splitlines())
        urls.append((int(fields["FileSize"]), f"{larder.http}/{fields['URL']}"))
    largest = [url for _, url in sorted(urls)[-20:]]
    over, peak = threading.Event(), Peak(larder.process.pid)
    readers = [threading.Thread(target=read_on, args=(largest, number, over)) for number in range(DOWNLOADS)]
    for reader in readers:
        reader.start()
    pushers = [threading.Thread(target=larder.run, args=("push", cache, *new)) for cache in caches]
    for pusher in pushers:
        pusher.start()
    for pusher in pushers:
        pusher.join()
    over.set()
    for reader in readers:
        reader.join()
    return peak.stop()


def read_on(urls, number, over):
    while not over.is_set():
        with urllib.request.urlopen(urls[number % len(urls)]) as answer:
            while answer.read(1 << 16) and not over.is_set():
                pass
        number += 1


def idle_connections(larder):
    """Connections that have each asked once and are kept."""
    import resource
    import socket
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    address = larder.http.removeprefix("http://").rsplit(":", 1)
    held = []
    for _ in range(IDLE_CONNECTIONS):
        connection = socket.create_connection((address[0], int(address[1])), timeout=60)
        connection.sendall(b"GET /nix-cache-info HTTP/1.1\r\nHost: x\r\n\r\n")
        if not connection.recv(1 << 16).startswith(b"HTTP/1.1 200"):
            raise SystemExit("a connection was not answered")
        held.append(connection)
    return held


ROWS = {"reading": reading_rows, "pushing": pushing_rows, "memory": memory_rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", required=True)
    parser.add_argument("--larder", required=True)
    parser.add_argument("--pairs", type=int, default=5, help="pairs a row, at least 5")
    parser.add_argument("--rows", choices=sorted(ROWS), action="append", help="only these groups of rows")
    options = parser.parse_args()
    if options.pairs < 5:
        parser.error("a row needs at least 5 pairs")
    bench = Bench(options)
    bench.add("what (against)", "larder", "other", "ratio: median (least–most)", "aim")
    bench.add("---", "---", "---", "---", "---")
    for group in options.rows or ROWS:
        ROWS[group](bench)


if __name__ == "__main__":
    main()
