#!/usr/bin/env python3
"""Judges what capture.sh left in a results directory: counts frames and samples with ffprobe and
ffmpeg, and compares them with the receipt and with what the devices were fed. It reads no media
with code of this project.

    tests/vm/check.py RESULTS        RESULTS/input holds what the devices were fed

Prints `ok N - what` or `not ok N - what, why` per point, then `N passed, M failed`.
The exit code is 1 if any failed.
"""

import bisect
import cmath
import hashlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
from array import array
from pathlib import Path

# The picture's width tells the cameras apart without trusting the order or the names of tracks.
CAMERAS = {"raw-camera": ("raw camera", 320), "webcam": ("MJPEG camera", 640)}
MICROPHONE = "microphone"
SOURCES = [*CAMERAS, MICROPHONE]
SAMPLE_RATE = 48_000
TONE_HZ = 440.0
# What the guest asks for in vain: the reason that it is told, and what the message names.
REFUSALS = {
    "absent-camera": ("a camera that isn't there is refused by name", "DEVICE_MISSING", "attic"),
    "absent-microphone": ("a microphone that isn't there is refused by name", "DEVICE_MISSING", "attic"),
    "busy-camera": ("a camera that another program captures is refused by name", "DEVICE_BUSY", "/dev/video0"),
    "busy-microphone": ("a microphone that another program captures is refused by name", "DEVICE_BUSY", "Loopback"),
    "odd-camera": ("a picture size that the driver can't deliver is refused by name", "FORMAT_UNAVAILABLE", "333x77"),
    "odd-microphone": ("a rate that the driver can't deliver is refused by name", "FORMAT_UNAVAILABLE", "96000"),
}
# The command line's exit code for what the agent refuses.
REFUSED = 4
# Far fewer than ten seconds hold: they only exclude a recording of next to nothing.
FRAMES_MIN = 30
SAMPLES_MIN = 2 * SAMPLE_RATE
# The blocks that phases are taken of, and the rounding of a gap's ends.
GAP_MARGIN_S = 0.06


class Failed(Exception):
    """A point that does not hold; the message says why."""


def expect(holds, why):
    if not holds:
        raise Failed(why)


class Recording:
    """The answer to the stop, and the files it speaks of."""

    def __init__(self, results):
        self.results = results
        answer = json.loads((results / "stopped.json").read_text())
        self.session = answer["session"]
        self.receipt = answer["receipt"]
        session_file = json.loads((results / "session.json").read_text())
        self.dir = results / "media" / session_file["_id"]
        self.files = [self.dir / Path(file["path"]).name for file in self.receipt["files"]]
        wanted = {source["id"]: source["deviceId"] for source in session_file["sources"]}
        self.sources = {wanted[source["id"]]: source for source in self.receipt["sources"]}

    def source(self, device):
        expect(device in self.sources, "the receipt has no such source")
        return self.sources[device]

    def streams(self, kind):
        """(file, stream as ffprobe shows it), in the order of the files."""
        for file in self.files:
            shown = ffprobe(file, "-show_streams", "-count_packets", "-count_frames", "-select_streams", kind)
            for stream in shown["streams"]:
                yield file, stream

    def camera_streams(self, device):
        width = CAMERAS[device][1]
        found = [(file, stream) for file, stream in self.streams("v") if stream["width"] == width]
        expect(found, f"no file has a video track {width} pixels wide")
        return found

    def microphone_streams(self):
        found = list(self.streams("a"))
        expect(found, "no file has a sound track")
        return found


def session_is_finished(recording):
    state, reason = recording.session["state"], recording.receipt["endReason"]
    expect(state == "finished", f"its state is {state}")
    expect(reason == "stop_requested", f"its end reason is {reason}")
    expect(set(recording.sources) == set(SOURCES), f"the receipt has {sorted(recording.sources)}")


def receipt_adds_up(recording):
    said = []
    for device in SOURCES:
        source = recording.source(device)
        counts = {key: source.get(key, 0) for key in ("captured", "written", "dropped", "lost", "missed", "filled")}
        text = " ".join(f"{key} {value}" for key, value in counts.items())
        said.append(f"{device}: {text}")
        total = counts["written"] + counts["dropped"] + counts["lost"]
        expect(counts["captured"] == total, f"captured = written + dropped + lost fails for {device}: {text}")
        expect(counts["lost"] == 0, f"{device} lost frames in a clean stop: {text}")
    return "; ".join(said)


def receipt_file_is_the_answer(recording):
    saved = json.loads((recording.dir / "receipt.json").read_text())
    saved = saved.get("receipt", saved)
    for part in ("sources", "files", "endReason"):
        expect(saved.get(part) == recording.receipt.get(part), f"receipt.json and the answer differ in {part}")


def files_are_as_told(recording):
    expect(recording.files, "the receipt lists no file")
    for file, told in zip(recording.files, recording.receipt["files"]):
        expect(file.exists(), f"{file.name} is missing")
        size = file.stat().st_size
        expect(size == told["bytes"], f"{file.name} has {size} bytes, not {told['bytes']}")
        digest = run("b3sum", "--no-names", str(file)).decode().strip()
        expect(told["blake3"].removeprefix("blake3:") == digest, f"{file.name} hashes to {digest}, not {told['blake3']}")
    return f"{len(recording.files)} of {sum(file['bytes'] for file in recording.receipt['files'])} bytes"


def frames_are_counted(device):
    def check(recording):
        written = recording.source(device)["written"]
        streams = recording.camera_streams(device)
        packets = sum(int(stream["nb_read_packets"]) for _, stream in streams)
        frames = sum(int(stream["nb_read_frames"]) for _, stream in streams)
        expect(packets == written, f"{packets} packets, {written} written")
        expect(frames == written, f"{frames} frames decode, {written} written")
        expect(written >= FRAMES_MIN, f"only {written} frames")
        return f"{written} frames"

    return check


def frames_decode(device):
    def check(recording):
        for file, stream in recording.camera_streams(device):
            done = subprocess.run(["ffprobe", "-v", "warning", "-count_frames", "-select_streams", str(stream["index"]),
                                   str(file)], capture_output=True, text=True, timeout=300)
            expect(not done.stderr, f"the decoder says: {done.stderr.strip()[:300]}")

    return check


def webcam_frames_are_the_fed_ones(recording):
    source = recording.source("webcam")
    fed = split_jpegs((recording.results / "input" / "clip.mjpeg").read_bytes())
    places = {hashlib.sha256(frame).digest(): place for place, frame in enumerate(fed)}
    expect(len(places) == len(fed), "the clip has frames that are equal: the test can't tell them apart")

    recorded = []
    for file, stream in recording.camera_streams("webcam"):
        recorded += packets_of(file, stream)
    expect(len(recorded) == source["written"], f"{len(recorded)} frames extracted, {source['written']} written")
    order = []
    for number, frame in enumerate(recorded):
        place = places.get(hashlib.sha256(frame).digest())
        expect(place is not None, f"frame {number} ({len(frame)} bytes) is none of the {len(fed)} fed")
        order.append(place)

    # The clip goes round: a step of one is the next frame, a longer one leaves frames out.
    left_out = [(after - before - 1) % len(fed) for before, after in zip(order, order[1:])]
    for number, gap in enumerate(left_out):
        expect(gap != len(fed) - 1, f"frame {number + 1} repeats the one before it")
    accounted = source.get("missed", 0) + source.get("dropped", 0) + source.get("lost", 0)
    detail = f"{len(recorded)} frames, {sum(left_out)} left out"
    if sum(left_out) == accounted:
        return detail
    # v4l2loopback 0.12 resets the numbers of its buffers when a reader asks for some, so the first
    # one read may have number 0 and the second the count of frames since the writer's start.
    since_start = order[1] - 1 + sum(left_out[1:])
    if accounted >= since_start and (accounted - since_start) % len(fed) == 0:
        return f"{detail}; {accounted} accounted for, as the driver numbers its first buffer 0"
    where = [number + 1 for number, gap in enumerate(left_out) if gap]
    raise Failed(f"{sum(left_out)} are left out (before frames {where[:10]}), the receipt accounts for {accounted}")


def samples_are_counted(recording):
    source = recording.source(MICROPHONE)
    samples = len(decode_sound(recording))
    # Silence that fills a gap is in the file and in `filled`, not in `written`.
    told = source["written"] + source.get("filled", 0)
    expect(samples == told, f"{samples} samples decode, {source['written']} written and {source.get('filled', 0)} filled")
    expect(samples >= SAMPLES_MIN, f"only {samples} samples")
    return f"{samples} samples"


def tone_has_its_frequency(recording):
    periods = tone_periods(decode_sound(recording))
    expect(periods, "there is only silence")
    hz = SAMPLE_RATE / statistics.median(periods)
    expect(abs(hz - TONE_HZ) <= 1, f"it is {hz:.2f} Hz")
    whole = sum(period for period in periods if abs(SAMPLE_RATE / period - TONE_HZ) <= 1)
    share = whole / recording.source(MICROPHONE)["written"]
    # The rest is where sound stops and starts again, and silence before the player's first sample.
    expect(share > 0.8, f"only {share:.0%} of the written samples are of that tone")
    return f"{hz:.2f} Hz, {share:.1%} of the written samples"


def tone_jumps_at_gaps_only(recording):
    gaps = [(gap["startSeconds"], gap["startSeconds"] + gap["durationSeconds"])
            for gap in recording.source(MICROPHONE).get("gaps", [])]
    player = (recording.results / "tone.log").read_text().strip()
    expect(not player, f"the player itself fell behind ({player[:100]}): run it on an idle machine")
    times = sample_times(recording)
    jumps = [times(sample) for sample in phase_jumps(decode_sound(recording))]
    unexplained = [round(at, 2) for at in jumps
                   if not any(start - GAP_MARGIN_S <= at <= end + GAP_MARGIN_S for start, end in gaps)]
    expect(not unexplained, f"it does at {unexplained[:10]} s, where the receipt tells of no gap")
    return f"{len(jumps)} jumps, {len(gaps)} gaps"


def timestamps_are_of_whom_it_says(recording):
    said = {device: recording.source(device)["timestampSource"] for device in SOURCES}
    # v4l2loopback 0.12 leaves its timestamps without V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC.
    due = {"raw-camera": "driver", "webcam": "arrival", MICROPHONE: "driver"}
    wrong = [f"{device} has {said[device]}, not {word}" for device, word in due.items() if said[device] != word]
    expect(not wrong, "; ".join(wrong))


def devices_are_let_go(recording):
    before, after = ((recording.results / f"held-{when}-stop").read_text().split() for when in ("before", "after"))
    expect(len(before) == len(SOURCES), f"before the stop shutterd held {before}: the look at it is wrong")
    expect(not after, f"shutterd still holds {after}")
    return f"before it: {' '.join(before)}"


def device_opens(device):
    def check(recording):
        code, size, said = (recording.results / f"{device}.opened").read_text().split("\n", 2)
        expect(code == "0" and size != "0", f"exit code {code} and {size} bytes: {said.strip()[:300]}")
        return f"{size} bytes"

    return check


def refusal_is_named(name):
    _, reason, named = REFUSALS[name]

    def check(recording):
        code = int((recording.results / f"refused-{name}.code").read_text())
        error = json.loads((recording.results / f"refused-{name}.json").read_text().splitlines()[-1])["error"]
        expect((code, error["reason"]) == (REFUSED, reason), f"exit code {code}: {error}")
        expect(named in error["message"], f"{named} isn't named: {error['message']}")
        if reason == "DEVICE_BUSY":
            expect(error["about"].get("holder") == "another process", f"who holds it isn't told: {error}")
        return error["message"]

    return check


def refusals_leave_nothing(recording):
    held = (recording.results / "held-after-refusals").read_text().split()
    expect(not held, f"shutterd holds {held}")
    left = [name for name in REFUSALS if (recording.dir.parent / name).exists()]
    expect(not left, f"there is media of {left}")


def daemon_ended_well(recording):
    code = (recording.results / "daemon-exit-code").read_text().strip()
    expect(code == "0", f"its exit code is {code}")


def guest_script_ended_well(recording):
    code = (recording.results / "exit-code").read_text().strip()
    expect(code == "0", f"its exit code is {code}")


POINTS = [
    ("the stopped session is finished, with a receipt of its three sources", session_is_finished),
    ("the receipt adds up and nothing is lost", receipt_adds_up),
    ("receipt.json is the receipt of the answer", receipt_file_is_the_answer),
    ("the files have the size and the hash of the receipt", files_are_as_told),
    *[(f"ffprobe counts the {name}'s written frames", frames_are_counted(device))
      for device, (name, _) in CAMERAS.items()],
    *[(f"every frame of the {name} decodes without a complaint", frames_decode(device))
      for device, (name, _) in CAMERAS.items()],
    ("the MJPEG camera's frames are, byte for byte and in order, the fed ones", webcam_frames_are_the_fed_ones),
    ("the microphone's written samples decode", samples_are_counted),
    ("the tone is 440 Hz", tone_has_its_frequency),
    ("the tone jumps nowhere but at the receipt's gaps", tone_jumps_at_gaps_only),
    ("the receipt tells the driver's timestamps from times of arrival", timestamps_are_of_whom_it_says),
    ("shutterd holds no device after the stop", devices_are_let_go),
    *[(f"the {name} can be opened after the stop", device_opens(device)) for device, (name, _) in CAMERAS.items()],
    ("the microphone can be opened after the stop", device_opens(MICROPHONE)),
    *[(what, refusal_is_named(name)) for name, (what, _, _) in REFUSALS.items()],
    ("what is refused holds no device and leaves no media", refusals_leave_nothing),
    ("the daemon ends on SIGTERM with exit code 0", daemon_ended_well),
    ("the guest script came to its end", guest_script_ended_well),
]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    results = Path(sys.argv[1])
    try:
        recording = Recording(results)
        unreadable = None
    except (OSError, ValueError, KeyError) as error:
        recording = None
        unreadable = f"the answer to the stop can't be read ({error!r})"
    failed = 0
    for number, (what, check) in enumerate(POINTS, 1):
        try:
            expect(recording, unreadable)
            detail = check(recording)
            print(f"ok {number} - {what}" + (f" ({detail})" if detail else ""), flush=True)
        except (Failed, OSError, ValueError, LookupError, TypeError, subprocess.CalledProcessError) as error:
            failed += 1
            why = str(error) if isinstance(error, Failed) else repr(error)
            print(f"not ok {number} - {what}, {why}", flush=True)
    print(f"{len(POINTS) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


def run(*command, stderr=None):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=stderr, stdin=subprocess.DEVNULL,
                          timeout=300).stdout


def ffprobe(file, *options):
    return json.loads(run("ffprobe", "-v", "error", "-of", "json", *options, str(file)))


def packets_of(file, stream):
    """The packets of one track as they are in the file."""
    with tempfile.TemporaryDirectory() as directory:
        run("ffmpeg", "-nostdin", "-v", "error", "-i", str(file), "-map", f"0:{stream['index']}", "-c", "copy",
            "-f", "image2", f"{directory}/%08d.jpg")
        return [path.read_bytes() for path in sorted(Path(directory).iterdir())]


def split_jpegs(clip):
    """Cuts where the end of an image is followed by the start of one: in entropy-coded data 0xff is stuffed."""
    pieces = clip.split(b"\xff\xd9\xff\xd8")
    return [(b"\xff\xd8" if number else b"") + piece + (b"\xff\xd9" if number < len(pieces) - 1 else b"")
            for number, piece in enumerate(pieces)]


decoded = {}


def decode_sound(recording):
    if recording not in decoded:
        samples = array("h")
        for file, stream in recording.microphone_streams():
            expect(stream["channels"] == 1 and int(stream["sample_rate"]) == SAMPLE_RATE,
                   f"the sound has {stream['channels']} channels at {stream['sample_rate']} Hz")
            samples.frombytes(run("ffmpeg", "-nostdin", "-v", "error", "-i", str(file),
                                  "-map", f"0:{stream['index']}", "-f", "s16le", "-"))
        if sys.byteorder == "big":
            samples.byteswap()
        decoded[recording] = samples
    return decoded[recording]


def sample_times(recording):
    """The seconds in the first file at which a sample stands: the timestamps follow the measured
    clock, so they are not just its number over the sample rate."""
    starts, seconds = [], []
    total = 0
    for file, stream in recording.microphone_streams():
        for frame in ffprobe(file, "-show_frames", "-select_streams", str(stream["index"]))["frames"]:
            starts.append(total)
            seconds.append(float(frame["pts_time"]))
            total += frame["nb_samples"]

    def time_of(sample):
        block = bisect.bisect_right(starts, sample) - 1
        return seconds[block] + (sample - starts[block]) / SAMPLE_RATE

    return time_of


def tone_periods(samples):
    """Samples between each rising zero crossing and the next, to a fraction of a sample."""
    crossings = [number + before / (before - after)
                 for number, (before, after) in enumerate(zip(samples, samples[1:])) if before < 0 <= after]
    return [after - before for before, after in zip(crossings, crossings[1:])]


def phase_jumps(samples):
    """Samples at which the tone's phase leaps: samples are missing, doubled or foreign there."""
    block = 1200  # 25 ms: eleven whole periods, so a steady tone has one phase in all blocks.
    turns = [cmath.exp(-2j * math.pi * TONE_HZ * number / SAMPLE_RATE) for number in range(block)]
    phases = []
    for start in range(0, len(samples) - block + 1, block):
        total = sum(turn * sample for turn, sample in zip(turns, samples[start:start + block]))
        phases.append(cmath.phase(total) if abs(total) > block * 250 else None)
    jumps = []
    for number, (before, after) in enumerate(zip(phases, phases[1:]), 1):
        if (before is None) != (after is None):
            # Silence at either end is the player's; in between it is a hole.
            if any(phase is not None for phase in phases[:number]):
                jumps.append(number * block)
        elif before is not None and abs(math.remainder(after - before, 2 * math.pi)) > 0.02:
            jumps.append(number * block)
    return jumps


if __name__ == "__main__":
    main()
