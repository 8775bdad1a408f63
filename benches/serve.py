#!/usr/bin/env python3
"""The figures of the server, as the tables of RESULTS.md: kontext-tiny, a server of its own for each table.

    cargo build --release && python3 benches/serve.py            all tables, some fifteen minutes
    python3 benches/serve.py overhead cancel                     these tables
    python3 benches/serve.py --rounds 1 throughput               with another number of rounds than the table's own

overhead     an edit through the server against the command, and where the rest of the time goes
idle         processor time of a server with nothing to do, and what 1,000 listeners cost
throughput   32 edits of five sizes at once against one at a time
refusals     how soon each refusal is answered, with an idle device and a busy one
cancel       how many steps a cancelled job still takes, and how soon it is over
steps        what a large picture of one job does to the steps of another

Clients run on the same machine, in this process. It talks to the server by HTTP alone, and reads of it in /proc.
"""
import argparse
import collections
import contextlib
import datetime
import hashlib
import http.client
import json
import os
import pathlib
import random
import re
import resource
import socket
import statistics
import struct
import subprocess
import tempfile
import threading
import time
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "target/release/darkroom"
PHOTO, PROMPT = ROOT / "tests/photos/friends.jpg", "a pencil sketch"
SIDES = dict(width=256, height=256)
LISTENERS, IDLE_SECONDS = 1000, 60
SIZES = [(256, 256), (320, 208), (208, 320), (368, 176), (128, 128)]
EDITS = 32
MAX_BODY = 64 << 20
BOUNDARY = "darkroom-bench"


class Server:
    """A server with a new store on a port of its own; SCHEDULER__JOBS=1 stands for DARKROOM__SCHEDULER__JOBS=1."""

    def __init__(self, **settings):
        self.settings = dict(SERVER__BIND="127.0.0.1:0", SERVER__DRAIN="0s") | settings

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        settings = self.settings | dict(STORE__PATH=f"{self.folder.name}/data")
        env = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
        env |= {f"DARKROOM__{name}": str(value) for name, value in settings.items()}
        self.process = subprocess.Popen([PROGRAM, "serve"], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
        told = []
        for line in self.process.stderr:
            told.append(line)
            if found := re.search(r"ready at http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                break
        else:
            raise SystemExit("the server did not start:\n" + "".join(told))
        # Whoever writes into a pipe that nobody reads stands still at some point.
        threading.Thread(target=lambda: [None for _ in self.process.stderr], daemon=True).start()
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)
        self.folder.cleanup()

    def ask(self, method, path, body=None, headers={}):
        """Status, headers and body of an answer, on a connection of its own."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def get(self, path):
        status, _, body = self.ask("GET", path)
        assert status == 200, (path, status, body)
        return body

    def submit(self, *pictures, **fields):
        """A job, as its submission was answered."""
        status, _, answer = self.ask("POST", "/api/edits", form(pictures, fields), FORM)
        assert status == 202, (status, answer)
        return json.loads(answer)

    def job(self, job):
        return json.loads(self.get(f"/api/jobs/{job['id']}"))

    def cancel(self, job):
        status, _, answer = self.ask("DELETE", f"/api/jobs/{job['id']}")
        assert status == 200, (status, answer)

    def metrics(self):
        """The metrics without labels, by name."""
        lines = (line.split() for line in self.get("/metrics").decode().splitlines() if line[0] != "#")
        return {name: float(value) for name, value in lines if "{" not in name}

    def socket(self):
        found = socket.create_connection(("127.0.0.1", self.port), 60)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return found

    def memory(self):
        """MB of the process in memory."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024 / 1e6

    def processor(self, threads=""):
        """Seconds of processor time so far, of the threads whose name begins so."""
        ticks = 0
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            # A thread may end at any moment.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                name, rest = re.fullmatch(r"\d+ \((.*)\) (.*)", (task / "stat").read_text().strip()).groups()
                ticks += sum(map(int, rest.split()[11:13])) if name.startswith(threads) else 0
        return ticks / os.sysconf("SC_CLK_TCK")


class Listener(threading.Thread):
    """Reads the events of a job to their end: `seen` has moment (time.time), name and data of each."""

    def __init__(self, server, job, query="previews=false"):
        super().__init__(daemon=True)
        self.seen, self.news, self.over = [], threading.Condition(), False
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
        self.connection.request("GET", f"{job['events_url']}?{query}")
        self.socket = self.connection.sock
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, self.answer.status
        self.start()

    def run(self):
        name = None
        with contextlib.suppress(OSError, ValueError, AttributeError, http.client.HTTPException):
            for line in self.answer:
                if line.startswith(b"event: "):
                    name = line[7:].strip().decode()
                elif line.startswith(b"data: "):
                    with self.news:
                        self.seen.append((time.time(), name, json.loads(line[6:])))
                        self.news.notify_all()
        with self.news:
            self.over = True
            self.news.notify_all()

    def all(self, name):
        return [(moment, data) for moment, event, data in list(self.seen) if event == name]

    def wait(self, name, count=1):
        """The moment of the event of that name that makes them so many."""
        with self.news:
            self.news.wait_for(lambda: len(self.all(name)) >= count or self.over, 600)
            found = self.all(name)
            assert len(found) >= count, (name, count, self.seen[-3:])
            return found[count - 1][0]

    def hang_up(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.join()
        self.connection.close()


FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def form(pictures=(), fields={}):
    parts = [f'"{name}"\r\n\r\n{value}'.encode() for name, value in (dict(prompt=PROMPT) | fields).items()]
    parts += [b'"image"; filename="a"\r\n\r\n' + picture for picture in pictures]
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=".encode()
    return b"".join(head + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, data=None):
    """A coloured noise that no two rows have alike, or a file of that size with other compressed bytes."""
    if data is None:
        row = random.Random(1).randbytes(3 * width)
        rows = b"".join(b"\0" + row[at:] + row[:at] for at in (3 * (y % width) for y in range(height)))
        data = zlib.compress(rows, 1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def damaged(picture):
    """The file with one byte of its middle changed."""
    at = len(picture) // 2
    return picture[:at] + bytes([picture[at] ^ 0xFF]) + picture[at + 1:]


def middle(rows, key):
    return statistics.median(row[key] for row in rows)


def part(values, share):
    """The value that this share of them does not exceed."""
    return sorted(values)[max(0, -(-len(values) * share // 100) - 1)]


def others():
    """Seconds of processor time so far that other programs have had."""
    user, nice, system, _, _, *rest = map(int, pathlib.Path("/proc/stat").read_text().split()[1:9])
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK") - sum(of.ru_utime + of.ru_stime for of in own)


def seconds(text):
    return datetime.datetime.fromisoformat(text).timestamp()


def alone():
    """Seconds of an edit by the command, from its admission to the file."""
    with tempfile.TemporaryDirectory() as folder:
        command = [PROGRAM, "edit", "--image", PHOTO, "--prompt", PROMPT, "--steps", "20", "--seed", "1", "--width",
                   "256", "--height", "256", "-o", f"{folder}/out.png"]
        env = os.environ | dict(DARKROOM_LOG="debug")
        with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as run:
            # The command says its time in tenths of a second only.
            moments = {}
            for line in run.stderr:
                for word in ("admitted", "s a step"):
                    if word in line:
                        moments[word] = time.time()
    return moments["s a step"] - moments["admitted"]


def round_trip(server, query):
    """Milliseconds of an edit through the server, from the request to the picture, and of what."""
    photo, before = PHOTO.read_bytes(), server.metrics()
    sent = time.time()
    job = server.submit(photo, num_inference_steps=20, seed=1, **SIDES)
    listener = Listener(server, job, query)
    done = listener.wait("done")
    server.get(listener.all("done")[0][1]["image"]["url"])
    end = time.time()
    after, job = server.metrics(), server.job(job)
    spent = lambda name: after[f"darkroom_{name}_seconds_sum"] - before[f"darkroom_{name}_seconds_sum"]
    engine = spent("step") + spent("slice")
    started, finished = seconds(job["started"]), seconds(job["finished"])
    parts = dict(all=end - sent, engine=engine, taking=started - sent, between=finished - started - engine,
                 saving=done - finished, fetching=end - done, rest=end - sent - engine)
    return {name: 1000 * value for name, value in parts.items()}


def overhead(rounds):
    rounds = rounds or 5
    command, kinds = [], collections.defaultdict(list)
    for _ in range(rounds):
        command.append(dict(all=1000 * alone()))
        with Server() as server:
            kinds["server, its first edit"].append(round_trip(server, "previews=false"))
            kinds["server, a later edit"].append(round_trip(server, "previews=false"))
            kinds["server, a later edit with previews"].append(round_trip(server, ""))
    bare = middle(command, "all")
    rows = [["`darkroom edit`, from admission to file", f"{bare:.0f}", *[""] * 7]]
    for name, edits in kinds.items():
        of = [f"{middle(edits, key):.1f}" for key in ("engine", "taking", "between", "saving", "fetching", "rest")]
        rows.append([name, f"{middle(edits, 'all'):.0f}", *of, f"{0.02 * middle(edits, 'engine') + 20:.0f}"])
    first, later = (middle(kinds[name], "all") - bare for name in list(kinds)[:2])
    yield (f"One edit, 256x256, 20 steps, milliseconds, medians of {rounds} in turns, each round with a new process of "
           f"either kind; against the command the first edit of a server takes {first:+.0f} ms, a later one "
           f"{later:+.0f} ms.",
           ["", "all", "of that engine", "until it begins: upload, decoding, record", "between its work",
            "PNG and store", "fetching", "all but engine", "allowed: 2 % and 20 ms"], rows)


def hang(server, job):
    """A client that listens to a job and does nothing else."""
    client = server.socket()
    client.sendall(f"GET {job['events_url']}?previews=false HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    answer = b""
    while b"event: queued" not in answer:
        more = client.recv(4096)
        assert more, answer
        answer += more
    return client


def used(server, threads=""):
    """Percent of one processor that those threads use for a while."""
    before, start = server.processor(threads), time.time()
    time.sleep(IDLE_SECONDS)
    return 100 * (server.processor(threads) - before) / (time.time() - start)


def idle(_):
    needed = LISTENERS + 100
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= needed, f"needs ulimit -n of at least {needed}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with Server() as server:
        fresh = used(server)
        job = server.submit(PHOTO.read_bytes(), num_inference_steps=20, **SIDES)
        Listener(server, job).wait("done")
        rested = used(server)
    # Only a job that has not ended is listened to for long: one that waits behind another.
    with Server(SCHEDULER__JOBS=1) as server:
        long = server.submit(num_inference_steps=1000, width=768, height=768)
        Listener(server, long).wait("step", 3)
        waiting = server.submit(num_inference_steps=1)
        nobody = used(server, "tokio")
        before = server.memory()
        clients = [hang(server, waiting) for _ in range(LISTENERS)]
        connected = server.memory()
        many = used(server, "tokio")
        after = server.memory()
        for client in clients:
            client.close()
        time.sleep(3)
        gone = server.memory()
        assert server.job(waiting)["state"] == "queued", "the job before it must last longer"
        server.cancel(long)
    yield (f"A server with nothing to do: percent of one processor for {IDLE_SECONDS} s.",
           ["never had a job", "has had one"], [[f"{fresh:.2f}", f"{rested:.2f}"]])
    yield (f"{LISTENERS} clients that listen to one waiting job, previews=false, while another runs: memory of the "
           f"process in MB, and percent of one processor that the threads of the server (not the engine's) use for "
           f"{IDLE_SECONDS} s.",
           ["before", "connected", f"after {IDLE_SECONDS} s", "for the clients", "when they have gone",
            "processor, with nobody", f"with {LISTENERS}"],
           [[f"{before:.0f}", f"{connected:.0f}", f"{after:.0f}", f"{max(connected, after) - before:.0f}",
             f"{gone:.0f}", f"{nobody:.2f}", f"{many:.2f}"]])


def edit(server, photo, number, start, results):
    width, height = SIZES[number % len(SIZES)]
    job = server.submit(photo, num_inference_steps=20, seed=number, width=width, height=height)
    Listener(server, job).wait("done")
    job = server.job(job)
    picture = server.get(job["image"]["url"])
    results[number] = dict(wait=seconds(job["started"]) - start, end=seconds(job["finished"]) - start,
                           picture=hashlib.sha256(picture).digest())


def throughput(rounds):
    rounds, photo = rounds or 3, PHOTO.read_bytes()
    kinds = dict(together=[], alone=[])
    with Server() as server:
        edit(server, photo, 0, 0, {})
        for _ in range(rounds):
            for kind, measured in kinds.items():
                before, start, results = server.metrics(), time.time(), {}
                clients = [threading.Thread(target=edit, args=(server, photo, number, start, results))
                           for number in range(EDITS)]
                for client in clients:
                    client.start()
                    if kind == "alone":
                        client.join()
                for client in clients:
                    client.join()
                took, after = time.time() - start, server.metrics()
                assert len(results) == EDITS, "an edit was not answered"
                more = lambda name: after[f"darkroom_batch_jobs_{name}"] - before[f"darkroom_batch_jobs_{name}"]
                waits, ends = ([result[key] for result in results.values()] for key in ("wait", "end"))
                measured.append(dict(rate=EDITS / took, batch=more("sum") / more("count"), wait=part(waits, 50),
                                     long_wait=part(waits, 95), end=part(ends, 50), long_end=part(ends, 95),
                                     pictures=[results[number]["picture"] for number in range(EDITS)]))
    every = [measured["pictures"] for measured in kinds["together"] + kinds["alone"]]
    assert all(pictures == every[0] for pictures in every), "a picture is not the one that its request makes alone"
    rows = []
    for name, kind in (("all at once", "together"), ("the next when the last is done", "alone")):
        keys = ("rate", "batch", "wait", "long_wait", "end", "long_end")
        rows.append([name, *[f"{middle(kinds[kind], key):.2f}" for key in keys]])
    ratio = middle(kinds["together"], "rate") / middle(kinds["alone"], "rate")
    sizes = ", ".join(f"{width}x{height}" for width, height in SIZES)
    yield (f"{EDITS} edits of one photograph, 20 steps, in sizes {sizes}: medians of {rounds} rounds in turns; waits "
           f"and ends in seconds since the first request; at once gives {ratio:.2f} times the edits per second. Each "
           f"picture had the same bytes in every round.",
           ["", "edits/s", "mean jobs per step", "wait, p50", "p95", "end, p50", "p95"], rows)


def head(length):
    how = f"Content-Length: {length}" if length is not None else "Transfer-Encoding: chunked"
    return (f"POST /api/edits HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Content-Type: {FORM['Content-Type']}\r\n{how}\r\n\r\n").encode()


def whole(*pictures, **fields):
    """A request in one or more pieces, of which the last is the last that its refusal needs."""
    body = form(pictures, SIDES | fields)
    request = head(len(body)) + body
    return [request[:-4096], request[-4096:]] if len(request) > 8192 else [request]


def endless():
    """A body in chunks, whose last one is the first too many."""
    yield head(None)
    body = form([b""])[:-len(f"\r\n--{BOUNDARY}--\r\n")]
    yield b"%x\r\n%b\r\n" % (len(body), body)
    piece = bytes(64 << 10)
    for _ in range(-(-(MAX_BODY + 1 - len(body)) // len(piece))):
        yield b"%x\r\n%b\r\n" % (len(piece), piece)


def refused(server, pieces, status, code):
    """Milliseconds from the last piece to the end of the answer."""
    with server.socket() as client:
        for piece in pieces:
            start = time.perf_counter()
            client.sendall(piece)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        body = answer.read()
        took = time.perf_counter() - start
    found = json.loads(body)["error"]["code"]
    assert (answer.status, found) == (status, code), (answer.status, body)
    assert code != "queue_full" or int(answer.headers["Retry-After"]) > 0
    return 1000 * took


def half(server):
    """Seconds until a connection is closed whose head does not end."""
    with server.socket() as client:
        start = time.perf_counter()
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half: ")
        while client.recv(4096):
            pass
        return time.perf_counter() - start


def cases():
    small, broken = png(256, 256), damaged(png(4000, 3000))
    gif = b"GIF89a" + struct.pack("<HHBBB", 16, 16, 0, 0, 0) + bytes(64)
    huge = png(30000, 30000, data=zlib.compress(bytes(1000)))
    return {
        "body too large, by its length": (413, "body_too_large", lambda: [head(MAX_BODY + 1)]),
        "body too large, counted": (413, "body_too_large", endless),
        "too much memory, 1024x1024": (422, "too_much_memory", lambda: whole(width=1024, height=1024)),
        "GIF": (415, "unsupported_image", lambda: whole(gif)),
        "PNG that is cut off": (422, "broken_image", lambda: whole(small[:len(small) // 2])),
        "PNG with damaged pixels": (422, "broken_image", lambda: whole(damaged(small))),
        "PNG of 4000x3000 with damaged pixels": (422, "broken_image", lambda: whole(broken)),
        "PNG of 30000x30000 by its head": (422, "image_too_large", lambda: whole(huge)),
        "a field out of range": (422, "invalid_parameter", lambda: whole(num_inference_steps=0)),
    }


def measure(server, rounds, of):
    """Milliseconds of each case, many times; the first time of each is left out."""
    return {name: [refused(server, pieces(), status, code) for _ in range(rounds + 1)][1:]
            for name, (status, code, pieces) in of.items()}


def refusals(rounds):
    rounds, every = rounds or 50, cases()
    full = {"queue full, with Retry-After": (429, "queue_full", lambda: [head(100_000)])}
    with Server(SCHEDULER__JOBS=1, SCHEDULER__QUEUE=2, SCHEDULER__MEMORY="64MiB") as server:
        idle, halves = measure(server, rounds, every), [half(server)]
        # Many tokens take long and little memory.
        running = server.submit(PHOTO.read_bytes(), num_inference_steps=1000, max_sequence_length=512, true_cfg_scale=2,
                                negative_prompt="a photograph", **SIDES)
        Listener(server, running).wait("step")
        busy = measure(server, rounds, every)
        halves.append(half(server))
        assert server.job(running)["state"] == "running", "the job that keeps the device busy must last longer"
        for _ in range(2):
            server.submit(**SIDES)
        busy |= measure(server, rounds, full)
    rows = []
    for name, (status, code, _) in (every | full).items():
        times = [f"{show(of[name]):.1f}" if name in of else "" for of in (idle, busy)
                 for show in (statistics.median, max)]
        rows.append([name, f"{status} `{code}`", *times])
    yield (f"Refusals: milliseconds from the last byte that is needed to the whole answer, {rounds} of each, with an "
           f"idle device and with one that is busy. A head that does not end is closed after {halves[0]:.2f} s idle, "
           f"{halves[1]:.2f} s busy.",
           ["", "answer", "idle, p50", "max", "busy, p50", "max"], rows)


def cancelled(server, hang_up):
    """Steps after the cancellation was sent, and milliseconds until it was answered and until the job was over."""
    job = server.submit(num_inference_steps=1000, seed=1, **SIDES)
    watcher = Listener(server, job)
    holder = Listener(server, job, "previews=false&cancel_on_disconnect=true") if hang_up else None
    watcher.wait("step", random.randint(3, 9))
    time.sleep(random.uniform(0, 0.1))
    sent = time.time()
    holder.hang_up() if hang_up else server.cancel(job)
    answered = time.time()
    over = watcher.wait("cancelled")
    steps = [moment > sent for moment, _ in watcher.all("step")]
    assert server.job(job)["state"] == "cancelled"
    return dict(steps=sum(steps), answered=1000 * (answered - sent), over=1000 * (over - sent),
                step=1000 * statistics.median(data["seconds"] for _, data in watcher.all("step")))


def cancel(rounds):
    rounds, kinds = rounds or 20, {"DELETE": [], "hang-up": []}
    with Server() as server:
        for _ in range(rounds):
            for name, measured in kinds.items():
                measured.append(cancelled(server, name == "hang-up"))
    rows = []
    for name, measured in kinds.items():
        counts = collections.Counter(row["steps"] for row in measured)
        times = [f"{show(row[key] for row in measured):.1f}" for key in ("answered", "over")
                 for show in (statistics.median, max)]
        # A client that hangs up is not answered.
        times[:2] = times[:2] if name == "DELETE" else ["", ""]
        rows.append([name, ", ".join(f"{steps}: {counts[steps]}" for steps in sorted(counts)),
                     f"{middle(measured, 'step'):.1f}", *times])
    yield (f"A running job (256x256) is cancelled, {rounds} times each way: steps whose news came after the "
           f"cancellation was sent, and milliseconds.",
           ["by", "steps after: times", "median step", "answer, p50", "max", "`cancelled` event, p50", "max"], rows)


def stalls(server, large):
    """Steps of one job while another has a large picture encoded, steps once, and is decoded: for each such time, how
    long they took, and how long each had to wait, in milliseconds."""
    small = Listener(server, job := server.submit(num_inference_steps=1000, **SIDES))
    small.wait("step", 30)
    sent = time.time()
    other = Listener(server, server.submit(large, num_inference_steps=1, width=1024, height=1024))
    times = [0, sent, *(other.wait(name) for name in ("started", "step", "done"))]
    small.wait("step", len(small.all("step")) + 1)
    server.cancel(job)
    told = small.all("step")
    # What lies between two steps besides the later one itself, in which both may have been.
    waits = [(moment, 1000 * data["seconds"], max(0, 1000 * (moment - before - data["seconds"])))
             for (before, _), (moment, data) in zip(told, told[1:])]
    return [[(step, wait) for moment, step, wait in waits if since < moment <= until]
            for since, until in zip(times, times[1:])]


def steps(rounds):
    rounds, large = rounds or 3, png(4000, 3000)
    with Server() as server:
        measured = [stalls(server, large) for _ in range(rounds)]
    rows = []
    for name, runs in zip(("before it", "it is uploaded and read", "it is prepared and encoded, until its one step",
                           "its result is decoded and stored"), zip(*measured)):
        own, waits = zip(*sum(runs, [])) if any(runs) else ([0], [0])
        longest = [max((wait for _, wait in run), default=0) for run in runs]
        rows.append([name, f"{sum(map(len, runs)) / rounds:.0f}",
                     *(f"{value:.0f}" for value in (statistics.median(own), statistics.median(waits),
                                                    statistics.median(longest), max(longest)))])
    yield (f"Steps of a job of 256x256 while another has a picture of 4000x3000 and a result of 1024x1024, {rounds} "
           f"rounds, milliseconds. A wait is the time from step to step without the step itself.",
           ["while", "steps, mean", "median step", "median wait", "longest wait, median of rounds", "longest"], rows)


TABLES = dict(overhead=overhead, idle=idle, throughput=throughput, refusals=refusals, cancel=cancel, steps=steps)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--rounds", type=int)
    args = parser.parse_args()
    if unknown := set(args.tables) - set(TABLES):
        parser.error(f"there is no table {', '.join(unknown)}, expected some of {', '.join(TABLES)}")
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    for name in args.tables or TABLES:
        start, before = time.time(), others()
        for caption, head, rows in TABLES[name](args.rounds):
            busy = max(0, others() - before) / (time.time() - start)
            print(f"\n{caption} {datetime.date.today()}, commit {commit.stdout.strip()}; other programs used "
                  f"{busy:.2f} of {os.cpu_count()} processors.\n")
            for row in [head, ["---"] * len(head), *rows]:
                print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
