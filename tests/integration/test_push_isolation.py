"""One provider is away: the others and in-app do not notice (REL-4, FAN-8; DESIGN 4.3).

A steady load for T seconds calm, then for T seconds more while APNs is gone (half of it refusing, half silent), the same
events all the time: in-app to people who are connected and acknowledge, FCM, and APNs. The p99 from the producer's request
to the client, and to FCM, are compared. BELFRY_ISOLATION_SECONDS (8) is T; from 300 on the strict bound holds (5%),
below it one that a busy machine keeps too. BELFRY_ISOLATION_RATE (60) is events a second of each kind.
"""
import asyncio
import json
import multiprocessing
import os
import pathlib
import pickle
import sys
import time
import urllib.parse

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import harness  # noqa: E402
from harness import until  # noqa: E402
from phones import ACCEPTED, PushNode  # noqa: E402

SECONDS = float(os.environ.get("BELFRY_ISOLATION_SECONDS", "8"))
RATE = float(os.environ.get("BELFRY_ISOLATION_RATE", "60"))
PEOPLE = 40       # of each kind
LANES = 6         # connections of the producer
STRICT_S = 300.0  # that long, the figures mean something
STRICT = 1.05
LOOSE, LOOSE_S = 2.0, 0.020
ROUNDS = 2        # when a short run is beyond its bound, once more: the machine may have been busy
KINDS = ("inapp", "fcm", "apns")


async def post(reader, writer, host, key, body):
    text = json.dumps(body).encode()
    writer.write((f"POST /v1/notifications HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
                  f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n").encode() + text)
    head = await reader.readuntil(b"\r\n\r\n")
    size = next(int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length"))
    answer = await reader.readexactly(size)
    assert b" 202 " in head.split(b"\r\n")[0], answer


def produce(api, key, seconds, phase, out):
    """A process: RATE events a second of each kind, evenly, each with the wall time at which it was due."""
    url = urllib.parse.urlsplit(api)

    async def lane(number, began):
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        total = int(seconds * RATE) * len(KINDS)
        for n in range(number, total, LANES):
            await asyncio.sleep(max(0.0, began + n / (RATE * len(KINDS)) - time.time()))
            kind = KINDS[n % len(KINDS)]
            body = {"user_id": f"{kind}{n // len(KINDS) % PEOPLE}", "type": "t", "title": "x",
                    "data": {"at": time.time(), "phase": phase}}
            if kind != "inapp":
                body["channels"] = ["push"]
            await post(reader, writer, url.netloc, key, body)
        writer.close()

    async def everything():
        began = time.time() + 0.05
        await asyncio.gather(*(lane(i, began) for i in range(LANES)))
    asyncio.run(everything())
    pathlib.Path(out).write_text("done")


def listen(url, tokens, stop, ready, out):
    """A process: everybody who is connected; acknowledges each message and notes how long it took."""
    took = []

    async def one(token):
        async with harness.ws_connect(url, subprotocols=["belfry.v1.json"], ping_interval=None, max_queue=None,
                                      extra_headers={"Authorization": f"Bearer {token}"}) as socket:
            await socket.send('{"t":"connect"}')
            await socket.recv()
            with ready.get_lock():
                ready.value += 1
            while True:
                frame = json.loads(await socket.recv())
                if frame["t"] == "n":
                    took.append((frame["data"]["phase"], time.time() - frame["data"]["at"]))
                    await socket.send(json.dumps({"t": "ack", "seq": frame["seq"]}))

    async def everything():
        tasks = [asyncio.create_task(one(token)) for token in tokens]
        while not stop.is_set():
            await asyncio.sleep(0.05)
            for task in tasks:
                assert not task.done(), task.exception()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    asyncio.run(everything())
    with open(out, "wb") as f:
        pickle.dump(took, f)


def p99(values):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


class Load:
    def __init__(self, node, directory):
        self.node, self.directory = node, directory
        self.context = multiprocessing.get_context("fork")
        apps = {"inapp": "ios", "fcm": "android", "apns": "ios"}
        for kind in KINDS:
            for n in range(PEOPLE):
                node.put_user(f"{kind}{n}")
                node.phone(f"{kind}{n}", apps[kind])
        tokens = [node.token(f"inapp{n}", ttl=86400) for n in range(PEOPLE)]
        self.stop, self.ready = self.context.Event(), self.context.Value("i", 0)
        self.took = directory / "took"
        self.listener = self.context.Process(target=listen, args=(node.info["ws"], tokens, self.stop, self.ready, self.took))
        self.listener.start()
        until(lambda: self.ready.value == PEOPLE, 30, "everybody is connected")

    def run(self, phase, seconds, faults=()):
        """The same events as ever, while these faults follow each other."""
        out = self.directory / f"done-{phase}"
        producer = self.context.Process(target=produce, args=(self.node.info["api"], self.node.key, seconds, phase, out))
        if faults:
            part = seconds / len(faults)
            self.node.providers.faults(*({"provider": "apns", "start_s": i * part, "duration_s": part, **fault}
                                   for i, fault in enumerate(faults)))
        producer.start()
        producer.join(seconds + 60)
        assert out.exists(), "the producer sent everything"
        self.node.providers.calm()

    def close(self):
        self.stop.set()
        self.listener.join(20)
        with open(self.took, "rb") as f:
            return pickle.load(f)


def figures(node, directory, number):
    """{kind: {phase: p99}} of one round."""
    load = Load(node, directory)
    want = int(SECONDS * RATE)
    try:
        load.run("warm", min(3.0, SECONDS))
        load.run("calm", SECONDS)
        load.run("outage", SECONDS, [{"kind": "outage", "how": "refuse"}, {"kind": "outage", "how": "silent"}])

        def fcm(phase):
            node.record.refresh()
            lines = (x for x in node.record.lines if x["provider"] == "fcm" and x["status"] in ACCEPTED)
            return [x["t"] / 1e6 - float(d["at"]) for x in lines
                    if (d := json.loads(x["payload"])["message"]["data"])["phase"] == phase]
        for phase in ("calm", "outage"):
            until(lambda p=phase: len(fcm(p)) >= want, 10, f"every push to FCM, {phase}")
    finally:
        took = load.close()
    inapp = {phase: [s for p, s in took if p == phase] for phase in ("calm", "outage")}
    assert all(len(values) == want for values in inapp.values()), {p: len(v) for p, v in inapp.items()}
    out = {"inapp": {p: p99(v) for p, v in inapp.items()}, "fcm": {p: p99(fcm(p)) for p in ("calm", "outage")}}
    out["apns_taken"] = {p: sum(1 for x in node.record.lines if x["provider"] == "apns" and x["status"] in ACCEPTED
                                and f'"phase":"{p}"' in x["payload"]) for p in ("calm", "outage")}
    out["round"] = number
    return out


@pytest.mark.slow
def test_an_outage_of_one_provider_is_its_own(tmp_path):
    strict = SECONDS >= STRICT_S
    for number in range(1, 2 if strict else ROUNDS + 1):
        directory = tmp_path / str(number)
        directory.mkdir()
        with PushNode() as node:
            got = figures(node, directory, number)
        got["seconds"], got["rate_per_kind"] = SECONDS, RATE
        got["ratio"] = {kind: round(got[kind]["outage"] / got[kind]["calm"], 3) for kind in ("inapp", "fcm")}
        print(json.dumps(got))
        bound = {kind: got[kind]["calm"] * (STRICT if strict else LOOSE) + (0 if strict else LOOSE_S)
                 for kind in ("inapp", "fcm")}
        assert got["apns_taken"]["calm"] == int(SECONDS * RATE), got
        assert got["apns_taken"]["outage"] < int(SECONDS * RATE), f"APNs was not away: {got}"
        if all(got[kind]["outage"] <= bound[kind] for kind in bound):
            return
    raise AssertionError(f"slower while APNs is away: {got}; allowed {bound}")
