#!/usr/bin/env python3
"""Judges what faults.sh left in a results directory, a directory a row.

    tests/vm/check-faults.py RESULTS TOLD [SERVICE]

RESULTS/input holds what the devices were fed, and which rows were run. A line a row goes to TOLD, for the table
of `make faults`; SERVICE, the results of service.sh and `points`, what check-service.py said of them, tells of more rows.
Prints `ok N - row` or `not ok N - row, why` per row, then `N passed, M failed`.
The exit code is 1 if any failed.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import check
from check import Failed, expect
from scene import Scene, refusal

SYNC_MS_MAX = 2.0
# The worker is held up for a second, and the driver keeps a fifth of one for it.
HELD_S_MIN = 0.7
# The share of a processor that a worker may take more when a device is gone, in percent.
BUSY_MAX = 30
# Rows that service.sh tries: its scene, and the point of check-service.py.
SERVICE_ROWS = {
    "K3": ("after-cut", "a power cut: the file plays, and little is lost"),
    "K9": ("hung", "SIGSTOP of the daemon: the watchdog restarts it, and there is no gap"),
}


class NotRun(Exception):
    """The row could not be tried; the message says why."""


def comes_back(scene, device, count):
    """The device was lost so often, and came back into its track."""
    scene.is_one_file()
    gaps = scene.gaps(device, "lost")
    expect(len(gaps) == count, f"{device} has {len(gaps)} gaps by loss, not {count}: {scene.source(device).get('gaps')}")
    expect(scene.source(device).get("restarts") == count, f"{device} was opened anew {scene.source(device).get('restarts')} times")
    expect(len(scene.tracks(device)) == 1, f"{device} has {len(scene.tracks(device))} tracks")
    stamps = scene.stamps(device)
    for gap in gaps:
        end = gap["startSeconds"] + gap["durationSeconds"]
        expect(any(abs(at - end) < 0.1 for at in stamps), f"no frame of {device} begins at the end of {gap}")
        expect(not any(gap["startSeconds"] + 0.1 < at < end - 0.01 for at in stamps), f"{device} has frames in {gap}")
    return ", ".join(f"{gap['durationSeconds']:.1f} s" for gap in gaps)


def held(scene, seen):
    return scene.lost, scene.stop_s, seen


def d1(results):
    scene = Scene(results / "D1")
    scene.is_whole(lost=1)
    after = [scene.is_told(mark, "raw-camera")[0] for mark in ("disconnected", "unbound")]
    gaps = comes_back(scene, "raw-camera", 2)
    scene.goes_on("microphone")
    return held(scene, f"told after {after[0]:.1f} and {after[1]:.1f} s; gaps of {gaps}; the microphone went on")


def d2(results):
    scene = Scene(results / "D2")
    scene.is_whole()
    warnings = [text for text in scene.receipt.get("warnings", []) if "delivered nothing for the last" in text]
    expect(warnings, f"no warning tells of the camera: {scene.receipt.get('warnings')}")
    return held(scene, warnings[0])


def d4(results):
    directory = results / "D4"
    calls = {"reqbufs": "allocating buffers", "qbuf": "queueing buffers", "streamon": "starting"}
    for call, doing in calls.items():
        failure = refusal(directory, call)["error"]
        why = f"(/dev/video0) failed while {doing}: Invalid argument"
        expect(failure["reason"] == "DEVICE_FAILED" and why in failure["message"], f"{call}: the answer is {failure}")
    before, after = ((directory / f"descriptors-{when}").read_text() for when in ("before", "after"))
    expect(descriptors(before) >= descriptors(after), f"the daemon's descriptors were\n{before}and are\n{after}")
    scene = Scene(directory)
    scene.is_whole()
    return held(scene, f"{', '.join(calls)}: DEVICE_FAILED, nothing held, the id is free")


def descriptors(listed):
    return sum(int(line.split()[0]) for line in listed.splitlines())


def d5(results):
    scene = Scene(results / "D5")
    scene.is_whole(lost=1)
    after, reason = scene.is_told("failed", "raw-camera")
    gaps = comes_back(scene, "raw-camera", 1)
    scene.goes_on("microphone")
    return held(scene, f"told after {after:.1f} s ({reason}); a gap of {gaps}; the microphone went on")


def d13(results):
    scene = Scene(results / "D13")
    scene.is_whole()
    source = scene.source("raw-camera")
    _, missed = scene.missed_by_the_kernel("raw-camera")
    gaps = sum(gap.get("missed", 0) for gap in scene.gaps("raw-camera"))
    expect(missed > 0, "the driver has dropped nothing")
    expect(source.get("missed", 0) == gaps == missed,
           f"the driver left out {missed} frames, the receipt says {source.get('missed', 0)}, its gaps {gaps}")
    return held(scene, f"{missed} missed, as the driver's sequence says")


def d14(results):
    scene = Scene(results / "D14")
    scene.is_whole()
    source = scene.source("raw-camera")
    numbers, missed = scene.missed_by_the_kernel("raw-camera")
    expect(any(after < before for before, after in zip(numbers, numbers[1:])), "the driver's sequence has not wrapped")
    expect(source.get("missed", 0) == missed, f"the driver left out {missed} frames, the receipt says {source.get('missed', 0)}")
    length_is_true(scene, "raw-camera")
    wrapped = {stamp >= 2**63 for stamp in kernel_stamps(scene)}
    expect(wrapped == {False, True}, "the driver's time has not wrapped")
    whose = source["timestampSource"]
    expect(whose == "arrival", f"the driver's stamps are of no clock, and the receipt says they are the {whose}'s")
    return held(scene, f"{missed} missed; the track runs on, stamped by {whose}")


def kernel_stamps(scene):
    return [int(stamp) for stamp in re.findall(r"timestamp = (\d+)", (scene.results / "dequeues").read_text())]


def length_is_true(scene, *devices):
    """Each track is as long as the time that has passed by a clock that nobody sets."""
    marks = scene.marks()
    passed = marks["stopped"][1] - marks["started"][1]
    for device in devices:
        stamps = scene.stamps(device)
        length = stamps[-1] - stamps[0]
        # The start's answer comes some time after the first frame; the stop is marked before it is asked for.
        expect(passed - 1 <= length <= passed + 8, f"{device} has {length:.1f} s, {passed:.1f} s have passed")
    return passed


def d3(results):
    scene = Scene(results / "D3")
    scene.is_whole()
    after, reason = scene.is_told("frozen", "raw-camera")
    scene.goes_on("microphone")
    expect(scene.gaps("raw-camera", "stalled"), f"no gap tells of it: {scene.source('raw-camera').get('gaps')}")
    return held(scene, f"told after {after:.1f} s ({reason}); the microphone went on")


def d9(results):
    for name in ("D9", "D9-start"):
        scene = Scene(results / name)
        scene.is_whole()
        grey = grey_frames(scene, "stable-camera")
        expect(not grey, f"{name}: {grey} frames are of the other camera")
    scene = Scene(results / "D9")
    nodes = (results / "D9" / "nodes").read_text().replace("\n", ", ")
    expect("video0 Decoy" in nodes, f"the decoy has not taken the node: {nodes}")
    after, _ = scene.is_told("unbound", "stable-camera")
    bound = scene.marks()["bound"][0]
    back = [when for _, when in scene.said("source delivers again") if when > bound]
    if not back:
        reasons = [fields.get("reason") for fields, _ in scene.said("source degraded")]
        last = [source["reason"] for event in scene.watched() if event.get("progress")
                for source in event["progress"]["sources"] if source["state"] == "degraded"][-1:]
        raise Failed(f"the camera is not found at its new node ({nodes}): {last or reasons}; "
                     "a session that starts then finds it, and neither records the decoy")
    comes_back(scene, "stable-camera", 1)
    for what, mark in (("gone", "unbound"), ("come", "bound")):
        told = [fields for fields, when in scene.said(f"a device has {what}") if when > scene.marks()[mark][0]]
        expect(any("vivid" in fields.get("key", "") for fields in told), f"nobody has noticed that it has {what}: {told}")
    return held(scene, f"told after {after:.1f} s; back {back[0] - bound:.1f} s after its return; no frame of the decoy")


def grey_frames(scene, device):
    """Frames that are all of one grey, as only the decoy's are."""
    count = 0
    for file, stream in scene.tracks(device):
        pixels = check.run("ffmpeg", "-nostdin", "-v", "error", "-i", str(file), "-map", f"0:{stream['index']}",
                           "-vf", "scale=16:9,format=gray", "-f", "rawvideo", "-")
        frames = [pixels[at:at + 144] for at in range(0, len(pixels), 144)]
        count += sum(max(frame) - min(frame) < 8 for frame in frames)
    return count


def d11(results):
    scene = Scene(results / "D11")
    scene.is_whole()
    scene.goes_on("raw-camera")
    tried = (results / "D11" / "set-format").read_text()
    refused = "busy" in tried.lower()
    sizes = []
    for file, stream in scene.tracks("webcam"):
        shown = check.ffprobe(file, "-show_entries", "frame=width,height", "-select_streams", str(stream["index"]))
        sizes.append({(frame["width"], frame["height"]) for frame in shown["frames"]})
    expect(sizes == [{(640, 360)}, {(480, 270)}], f"the pictures' sizes, file by file, are {sizes}")
    return held(scene, f"the driver {'refuses' if refused else 'takes'} another format; a new size begins a new file")


def a1(results):
    scene = Scene(results / "A1")
    player_kept_up(results / "A1")
    scene.is_whole()
    scene.filled_is_told("microphone")
    longest = max(scene.gaps("microphone"), key=lambda gap: gap["durationSeconds"])
    expect(longest["durationSeconds"] >= HELD_S_MIN, f"the longest gap is {longest}")
    off = scene.sound_is_off_by(longest["startSeconds"] + longest["durationSeconds"] / 2)
    expect(abs(off) <= SYNC_MS_MAX, f"after a gap of {longest['durationSeconds']:.2f} s the sound is {off:.2f} ms off")
    return held(scene, f"a gap of {longest['durationSeconds']:.2f} s is filled; the sound is {off:.2f} ms off after it")


def player_kept_up(directory):
    if "underrun" in (directory / "tone.log").read_text():
        raise NotRun("the player itself fell behind: run it on an idle machine")


def a2(results):
    scene = Scene(results / "A2")
    scene.is_whole()
    after, reason = scene.is_told("gone", "microphone")
    scene.goes_on("raw-camera")
    before, without = (int((results / "A2" / name).read_text()) for name in ("before", "without"))
    expect(without <= before + BUSY_MAX, f"the worker takes {without} % of a processor, {before} % before")
    expect(scene.gaps("microphone", "lost"), f"no gap tells of it: {scene.source('microphone').get('gaps')}")
    back = [when for _, when in scene.said("source delivers again") if when > scene.marks()["gone"][0]]
    expect(back, "the microphone is not taken up again")
    return held(scene, f"told after {after:.1f} s ({reason}); {before} % of a processor before, {without} % without")


def a5(results):
    directory = results / "A5"
    for name, there in (("rate", "it offers 44100 Hz"), ("channels", "2 channels")):
        failure = refusal(directory, name)["error"]
        expect(failure["reason"] == "FORMAT_UNAVAILABLE" and there in failure["message"], f"{name}: the answer is {failure}")
    scene = Scene(directory)
    scene.is_whole()
    return held(scene, "FORMAT_UNAVAILABLE with what was asked for and what there is")


def t1(results):
    scene = Scene(results / "T1")
    scene.is_whole()
    scene.goes_on(*scene.devices)
    passed = length_is_true(scene, *scene.devices)
    noted = re.findall(r"[^\"]*\bclock\b[^\"]*", json.dumps(scene.receipt), re.IGNORECASE)
    expect(len(noted) == 2, f"the timeline is unbroken over {passed:.1f} s, but of the clock's two steps the receipt says {noted}")
    return held(scene, f"unbroken over {passed:.1f} s; {noted[0]}")


def t2(results):
    scene = Scene(results / "T2")
    scene.is_whole()
    scene.goes_on(*scene.devices)
    passed = length_is_true(scene, *scene.devices)
    return held(scene, f"unbroken over {passed:.1f} s")


def k7(results):
    other = Scene(results / "K7-other")
    other.is_whole()
    other.goes_on(*other.devices)
    before, after = (results / "K7-other" / "workers").read_text().split()
    expect(before == after, f"the other session's worker was {before} and is {after}")
    events = dict(line.split() for line in (results / "K7" / "memory.events").read_text().splitlines())
    expect(int(events["oom_kill"]) > 0, f"the kernel has killed nobody: {events}")
    scene = Scene(results / "K7")
    expect(scene.receipt["endReason"] == "stop_requested", f"it ended by {scene.receipt['endReason']}")
    scene.files_are_whole()
    expect([bool(file.get("repaired")) for file in scene.receipt["files"]] == [True, False], f"its files: {scene.receipt['files']}")
    gaps = scene.gaps("raw-camera", "restart")
    expect(len(gaps) == 1, f"its gaps: {scene.source('raw-camera').get('gaps')}")
    return held(scene, f"a new worker after {gaps[0]['durationSeconds']:.1f} s, the file plays; the other session has no gap")


ROWS = {"D1": d1, "D2": d2, "D4": d4, "D5": d5, "D13": d13, "D14": d14, "D3": d3, "D9": d9, "D11": d11,
        "A1": a1, "A2": a2, "A5": a5, "T1": t1, "T2": t2, "K7": k7}


def judge(results, row):
    """The row's line for the table, behind its name."""
    broke = results / row / "broke"
    try:
        expect(not broke.exists(), f"the row broke off: {broke.exists() and broke.read_text().strip()}")
        lost, stop_s, seen = ROWS[row](results)
        return ["holds", str(lost), f"{stop_s:.3f}", seen]
    except NotRun as error:
        return ["not run", str(error)]
    except Failed as error:
        return ["fails", str(error)]
    except (OSError, ValueError, KeyError, TypeError, IndexError, subprocess.SubprocessError) as error:
        return ["fails", f"what it left can't be judged: {error!r}"]


def told_by_the_service(service):
    """Lines of the rows that the service part has tried."""
    points = (service / "points").read_text().splitlines()
    for row, (scene, what) in SERVICE_ROWS.items():
        for line in points:
            found = re.match(rf"(ok|not ok) \d+ - {re.escape(what)}(.*)", line)
            if not found:
                continue
            seen = found[2].strip(" ,()")
            if found[1] == "not ok":
                yield [row, "fails", seen]
                continue
            sources = check.Recording(service / scene).receipt["sources"]
            lost = sum(source.get("lost", 0) + source.get("dropped", 0) for source in sources)
            yield [row, "holds", str(lost), "", seen]


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    results, told = Path(sys.argv[1]), Path(sys.argv[2])
    failed = 0
    rows = (results / "input" / "rows").read_text().split()
    lines = []
    for number, row in enumerate(rows, 1):
        line = judge(results, row)
        lines.append([row, *line])
        if line[0] == "holds":
            print(f"ok {number} - {row} ({line[3]})", flush=True)
        else:
            failed += 1
            print(f"not ok {number} - {row}, {line[0]}: {line[1]}", flush=True)
    if len(sys.argv) == 4:
        lines += told_by_the_service(Path(sys.argv[3]))
    told.write_text("".join("\t".join(" ".join(word.split()) for word in line) + "\n" for line in lines))
    print(f"{len(rows) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
