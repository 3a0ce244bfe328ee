"""What a faults row has left of one session: the answer to its stop, its files, its changes as they were watched,
the daemon's log, and the kernel's own account. It reads no media with code of this project."""

import json
import re
from datetime import datetime

import check
from check import Failed, Recording, expect

# The pictures' widths tell the cameras apart; the webcam can be made to change its own.
WIDTHS = {"raw-camera": {320}, "stable-camera": {320}, "webcam": {640, 480}}
# An emulated machine takes its time for everything.
STOP_S_MAX = 8.0
TOLD_S_MAX = 5.0
# The machine's own stalls are shorter, and what a fault takes from a source that it reaches is longer.
PAUSE_S_MAX = 1.0
# A written stamp has a tenth of a millisecond; two frames may fall on one.
BACK_S_MAX = 0.0001


class Scene(Recording):
    """A session that was stopped."""

    def __init__(self, directory):
        super().__init__(directory)
        session = json.loads((directory / "session.json").read_text())
        self.devices = [source["deviceId"] for source in session["sources"]]
        self.ids = {source["id"]: source["deviceId"] for source in session["sources"]}
        self.cache = {}

    @property
    def lost(self):
        """Frames and samples that were captured and are not in the files."""
        return sum(source.get("lost", 0) + source.get("dropped", 0) for source in self.sources.values())

    @property
    def stop_s(self):
        """From the acceptance of the stop until the media was final."""
        return stamp(self.receipt["finalizedAt"]) - stamp(self.receipt["requestedAt"])

    def is_whole(self, lost=0):
        """It was ended as asked and in time, every file plays and is what the receipt says, and no more is lost."""
        expect(self.session["state"] == "finished", f"its state is {self.session['state']}")
        reason = self.receipt["endReason"]
        expect(reason == "stop_requested" and not self.receipt.get("forced"), f"it ended by {reason}, by force: {self.receipt.get('forced')}")
        self.files_are_whole()
        expect(self.lost <= lost, f"{self.lost} frames or samples are lost")
        expect(self.receipt.get("releasedAt"), "no device was released, says the receipt")
        expect(self.stop_s <= STOP_S_MAX, f"the stop took {self.stop_s:.1f} s")
        held = (self.results / "held-after").read_text().split()
        expect(not held, f"after the stop shutterd holds {held}")

    def files_are_whole(self):
        check.files_are_as_told(self)
        for device in self.devices:
            source = self.source(device)
            parts = {key: source.get(key, 0) for key in ("captured", "written", "dropped", "lost")}
            expect(source.get("atLeast") or parts["captured"] == parts["written"] + parts["dropped"] + parts["lost"],
                   f"{device} doesn't add up: {parts}")
            if device in WIDTHS:
                counted = [(int(stream["nb_read_packets"]), int(stream["nb_read_frames"]))
                           for _, stream in self.tracks(device)]
                packets, frames = map(sum, zip(*counted))
                expect(packets == frames == parts["written"],
                       f"{device}: {packets} packets, {frames} of them decode, {parts['written']} written")
            else:
                samples, told = len(check.decode_sound(self)), parts["written"] + source.get("filled", 0)
                expect(samples == told, f"{device}: {samples} samples decode, {told} written and filled")
            stamps = self.stamps(device)
            back = [f"{after:.4f} s after {before:.4f} s" for before, after in zip(stamps, stamps[1:])
                    if after < before - BACK_S_MAX]
            expect(not back, f"{device} runs back: {back[:3]}")

    def tracks(self, device):
        if device not in WIDTHS:
            return self.microphone_streams()
        found = [(file, stream) for file, stream in self.streams("v") if stream["width"] in WIDTHS[device]]
        expect(found, f"no file has a track of {device}")
        return found

    def stamps(self, device):
        """Seconds of its packets from the beginning of the first file."""
        if device not in self.cache:
            stamps, first = [], None
            for file, stream in self.tracks(device):
                shown = check.ffprobe(file, "-show_entries", "format_tags=creation_time:packet=pts_time",
                                      "-select_streams", str(stream["index"]))
                start = stamp(shown["format"]["tags"]["creation_time"])
                first = start if first is None else first
                stamps += [start - first + float(packet["pts_time"]) for packet in shown["packets"]]
            self.cache[device] = stamps
        return self.cache[device]

    def filled_is_told(self, device):
        """What was filled is what its gaps say is missing."""
        filled, missing = (self.source(device).get(key, 0) for key in ("filled", "missed"))
        gaps = sum(gap.get("missed", 0) for gap in self.gaps(device))
        expect(filled == missing == gaps > 0, f"{filled} samples are filled, {missing} missed, {gaps} by the gaps")

    def gaps(self, device, *reasons):
        return [gap for gap in self.source(device).get("gaps", []) if not reasons or gap["reason"] in reasons]

    def is_one_file(self):
        expect(len(self.receipt["files"]) == 1, f"it has {len(self.receipt['files'])} files")

    def goes_on(self, *devices):
        """These have delivered through all of it, but for the machine's own stalls."""
        for device in devices:
            gone = self.gaps(device, "lost", "restart", "disk")
            expect(not gone, f"{device} was to go on, and has {gone}")
            stamps = self.stamps(device)
            pause = max(after - before for before, after in zip(stamps, stamps[1:]))
            expect(pause <= PAUSE_S_MAX, f"{device} was to go on, and paused for {pause:.1f} s")

    def is_told(self, mark, device):
        """The source was degraded soon after the mark, with its reason in the log and to who watches."""
        at = self.marks()[mark][0]
        said = [(line, when - at) for line, when in self.said("source degraded") if when >= at - 0.1]
        expect(said, f"the log says nothing of a degraded source after {mark}")
        line, after = said[0]
        expect(after <= TOLD_S_MAX, f"the source is degraded only {after:.1f} s after {mark}")
        reasons = {source["reason"] for event in self.watched() if event.get("progress")
                   for source in event["progress"]["sources"]
                   if source["state"] == "degraded" and self.ids.get(source["id"]) == device}
        expect(reasons - {""}, f"who watches the session learns no reason for the degraded {device}")
        return after, line.get("reason", "")

    def watched(self):
        for line in (self.results / "watched.jsonl").read_text().splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue

    def marks(self):
        """By name: the wall clock, and the seconds that the machine has been up."""
        lines = (line.split() for line in (self.results / "marks").read_text().splitlines())
        return {name: (float(wall), float(uptime)) for name, wall, uptime in lines}

    def said(self, message):
        """The log's lines with this message, and when they were written."""
        for line in (self.results / "log").read_text(errors="replace").splitlines():
            try:
                line = json.loads(line)
            except ValueError:
                continue
            fields = line.get("fields", line)
            if fields.get("message") == message:
                yield fields, stamp(line["timestamp"])

    def missed_by_the_kernel(self, device):
        """Frames that the driver counted between those that it handed over, by the kernel's trace."""
        trace = (self.results / "dequeues").read_text()
        numbers = [int(number) for number in re.findall(r"sequence = (\d+)", trace)]
        taken = numbers[:self.source(device)["captured"]]
        expect(len(taken) == self.source(device)["captured"],
               f"the kernel has handed over {len(numbers)} frames, captured are {self.source(device)['captured']}")
        return taken, sum((after - before - 1) % 2**32 for before, after in zip(taken, taken[1:]))

    def sound_is_off_by(self, at):
        """Milliseconds by which the sound after the second `at` stands elsewhere than what was before it says; each
        sample that is fed tells its place within a second."""
        samples, time_of = check.decode_sound(self), check.sample_times(self)
        places = {"before": [], "after": []}
        for number in range(0, len(samples) - 1, 480):
            value = samples[number]
            when = time_of(number)
            # Sound that stands still is silence or a seam, and has no place.
            if samples[number + 1] - value == 1 and abs(when - at) <= 3:
                places["before" if when < at else "after"].append((when - (value + 24_000) / check.SAMPLE_RATE) % 1.0)
        expect(all(len(found) >= 20 for found in places.values()), f"there is too little sound around {at:.2f} s")
        before, after = (middle(found) for found in places.values())
        return ((after - before + 0.5) % 1.0 - 0.5) * 1000


def middle(turns):
    """The median of numbers on a circle of length one."""
    first = turns[0]
    near = sorted((turn - first + 0.5) % 1.0 - 0.5 for turn in turns)
    return first + near[len(near) // 2]


def stamp(text):
    return datetime.fromisoformat(text).timestamp()


def refusal(directory, name):
    """The answer to a start that was to fail: its reason and its text. Nothing may be left of it."""
    code = (directory / f"{name}.code").read_text().strip()
    answer = (directory / f"{name}.answer").read_text()
    expect(code != "0", f"{name}: the session was started: {answer[:200]}")
    for what in ("held", "worker"):
        left = (directory / f"{name}.{what}").read_text().split()
        expect(not left, f"{name}: after the failed start there is still {what}: {left}")
    try:
        failure = json.loads(answer)
    except ValueError:
        raise Failed(f"{name}: the answer is no JSON: {answer[:200]}") from None
    return failure
