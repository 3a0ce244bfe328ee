#!/usr/bin/env python3
"""Records synthetic devices for MINUTES, and tells every false alarm and everything that is missing.

    scripts/soak.py BINARY MINUTES

A real agent records, in one session, a camera at 30 frames a second, one that is in the dark for half of the
time (a quarter of the rate), one at 5 frames a second, and a microphone. None of them ever fails, so whatever
the agent warns of but the dark is an alarm. Prints alarms as they come; the exit code is 1 if there was one, or
if the receipt tells of anything lost, dropped, missed, filled in or broken, or of a gap.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCES = {"normal": "video", "dim": "video", "slow": "video", "mic": "audio"}
# What a receipt counts of what should not be.
WRONG = ("lost", "dropped", "missed", "filled", "corrupt", "restarts")
# A warning that is true: the camera in the dark is slow.
DARK = "more light may help"
DARK_LOGGED = "a source is slow"
# So many times at most the one camera goes into the dark.
ORDERS_MAX = 60
RATE = 30


def main(binary, minutes):
    seconds = round(minutes * 60)
    with tempfile.TemporaryDirectory(prefix="soak", dir="/tmp") as name:
        site = Path(name)
        (site / "soak.toml").write_text(config(site, seconds))
        log = (site / "serve.log").open("wb")
        agent = subprocess.Popen(
            command(binary, site, "serve"), env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            return soak(binary, site, seconds)
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.wait(timeout=60)


def soak(binary, site, seconds):
    alarms = Alarms(site / "serve.log")
    until("the agent serves", lambda: called(binary, site, "health").returncode != 3)
    start = called(binary, site, "session", "start", "-", given=json.dumps(session()))
    if start.returncode:
        sys.exit(f"the session can't be started: {start.stderr}")
    begun = time.monotonic()
    print(f"recording for {seconds / 60:g} min; load {load()}", flush=True)
    loads = []
    while (left := begun + seconds - time.monotonic()) > 0:
        time.sleep(min(left, 1))
        alarms.look()
        loads.append(os.getloadavg()[0])
    stop = called(binary, site, "--json", "session", "stop", "soak")
    alarms.look()
    if stop.returncode:
        sys.exit(f"the session can't be stopped: {stop.stderr}")
    wrong = judge(json.loads(stop.stdout)["receipt"], seconds)
    for line in wrong:
        print(f"WRONG  {line}")
    print(f"load: {sum(loads) / len(loads):.2f} on average, {max(loads):.2f} at most, {os.cpu_count()} cores")
    print(f"{seconds / 60:g} min: {alarms.count} alarms, {len(wrong)} things wrong")
    return 1 if alarms.count or wrong else 0


class Alarms:
    """Every warning and error of the agent and its workers, but the one that is true."""

    def __init__(self, path):
        self.lines, self.count, self.rest = path.open("rb"), 0, b""

    def look(self):
        """Prints what has come since the last look."""
        *whole, self.rest = (self.rest + self.lines.read()).split(b"\n")
        for line in filter(None, whole):
            try:
                told = json.loads(line)
            except ValueError:
                told = {"level": "ERROR", "fields": {"message": line.decode(errors="replace")}}
            said = json.dumps(told)
            if told.get("level") in ("WARN", "ERROR") and DARK_LOGGED not in said:
                self.count += 1
                print(f"ALARM  {said}", flush=True)


def judge(receipt, seconds):
    """What the receipt says that should not be, a line each."""
    wrong = [f"ended by {receipt['endReason']}"] if receipt["endReason"] != "stop_requested" else []
    wrong += [f"warns: {warning}" for warning in receipt["warnings"] if DARK not in warning]
    for source in receipt["sources"]:
        counts = {word: source[word] for word in ("captured", "written", *WRONG)}
        print(f"{source['device']}: {', '.join(f'{word} {count}' for word, count in counts.items())}")
        wrong += [f"{source['device']}: {source[word]} {word}" for word in WRONG if source[word]]
        wrong += [f"{source['device']}: a gap, {gap}" for gap in source["gaps"]]
        if not least(source["id"], seconds) <= source["captured"] == source["written"]:
            wrong.append(f"{source['device']}: {source['written']} written of {source['captured']} captured")
    return wrong


def least(source, seconds):
    """What a source delivers in so long, without the unevenness at both ends."""
    rates = {"normal": RATE, "slow": 5, "mic": 48000, "dim": RATE * (1 + 1 / 4) / 2}
    return rates[source] * seconds * 0.95


def config(site, seconds):
    half = max(10, seconds / 2 / ORDERS_MAX)
    orders = [
        f'{{ at_frame = {round((2 * at + 1) * half * RATE)}, frames = {round(half * RATE)}, fault = "dim" }}'
        for at in range(min(ORDERS_MAX, int(seconds / 2 / half) + 1))
    ]
    size = "width = 320\nheight = 180"
    return f"""
state_dir = "{site}/state"
runtime_dir = "{site}/run"
media_dir = "{site}/media"
api.tcp = "off"
http.listen = "off"
log.format = "json"

[[devices]]
id = "normal"
kind = "synthetic"
media = "video"
{size}
frame_rate = {RATE}

[[devices]]
id = "dim"
kind = "synthetic"
media = "video"
{size}
frame_rate = {RATE}
faults = [{", ".join(orders)}]

[[devices]]
id = "slow"
kind = "synthetic"
media = "video"
{size}
frame_rate = 5

[[devices]]
id = "mic"
kind = "synthetic"
media = "audio"
"""


def session():
    kinds = {"video": "local_camera", "audio": "local_microphone"}
    sources = [
        {"id": id, "name": id, "type": media, "device": kinds[media], "deviceId": id}
        for id, media in SOURCES.items()
    ]
    return {"_id": "soak", "name": "Soak", "state": "active", "sources": sources}


def called(binary, site, *arguments, given=""):
    return subprocess.run(
        command(binary, site, *arguments), env=environment(), input=given, capture_output=True, text=True, check=False
    )


def command(binary, site, *arguments):
    return [binary, "--config", str(site / "soak.toml"), *arguments]


def environment():
    """What is set for another agent, or by systemd for this process, is not meant for this one."""
    foreign = ("SHUTTERD_", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def load():
    return " ".join(f"{load:.2f}" for load in os.getloadavg())


def until(what, holds):
    deadline = time.monotonic() + 20
    while not holds():
        if time.monotonic() > deadline:
            sys.exit(f"waited in vain: {what}")
        time.sleep(0.1)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
