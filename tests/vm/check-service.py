#!/usr/bin/env python3
"""Judges what service.sh and after-cut.sh left in a results directory, a directory a scene: how the
unit is, and that nothing that happened to the daemon left a gap in a recording. Frames and samples are
counted as in check.py, without code of this project.

    tests/vm/check-service.py RESULTS        RESULTS/input holds what the devices were fed

Prints `ok N - what` or `not ok N - what, why` per point, then `N passed, M failed`.
The exit code is 1 if any failed.
"""

import json
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import check
from check import CAMERAS, MICROPHONE, SOURCES, Failed, Recording, expect

EXPOSURE_MAX = 2.0
STOP_S_MAX = 30
# The emulated machine stalls for moments: the drivers then count frames that nobody fetched, or deliver nothing;
# without a worker there would be none for as long as the daemon is gone, seconds.
GAP_S_MAX = 0.5
# What is durable is at most a quarter of a second behind, and a sync takes its time.
CUT_LOSS_S_MAX = 0.5
# An emulated machine takes its time to open three devices.
RESTART_S_MAX = 120
# What the journal tells of every session, in this order; a daemon that comes later doesn't see the worker end.
WORKER_IS_GONE = ("worker ended", "its worker is gone")
STORY = ("session admitted", "worker started", "recording", "stop accepted", "draining", "every device is closed",
         "the media is final", WORKER_IS_GONE, "session finished")
SCENES = ("killed", "hung", "workerkilled", "handover", "midstop", "stopped", "again")


def unit_is_ready(results):
    unit = properties(results / "unit")
    expect(unit["Type"] == "notify" and unit["User"] == "shutterd", f"it is {unit}")
    expect((unit["ActiveState"], unit["SubState"]) == ("active", "running"), f"it is {unit}")
    expect(re.fullmatch(r"0 sessions, [\d.]+ GiB of disk free", unit["StatusText"]), f"its status: {unit['StatusText']}")
    return f"Status: \"{unit['StatusText']}\""


def unit_verifies(results):
    said = (results / "verify").read_text()
    expect(not said, f"systemd-analyze verify says: {said.strip()[:400]}")


def unit_is_hardened(results):
    level = re.search(r"Overall exposure level for shutterd.service: ([\d.]+)", (results / "security").read_text())
    expect(level, "systemd-analyze security gives no level")
    expect(float(level[1]) <= EXPOSURE_MAX, f"its exposure level is {level[1]}")
    return f"exposure level {level[1]}"


def client_records(results):
    status = (results / "killed" / "status").read_text().strip()
    expect(re.fullmatch(r"1 session, 3 sources, 0 degraded, \d+ (h|min) of disk left", status), f"the unit's status: {status}")
    return f"Status: \"{status}\""


def no_gap_when(scene):
    """The same worker recorded on into the same file while another daemon came."""
    def point(results):
        directory = results / scene
        pids = {name: (directory / name).read_text().strip()
                for name in ("daemon-before", "daemon-after", "worker-before", "worker-after")}
        expect(pids["daemon-before"] != pids["daemon-after"], f"the daemon is the same: {pids}")
        expect(pids["worker-before"] == pids["worker-after"] != "", f"the worker is not the same: {pids}")
        detail = recording_is_whole(directory, "stop_requested")
        return f"daemon {pids['daemon-before']} -> {pids['daemon-after']}, worker {pids['worker-after']}; {detail}"

    return point


def handed_over_to_another_build(results):
    daemon, worker = ((results / "handover" / f"{which}-exe").read_text().strip() for which in ("daemon", "worker"))
    expect(daemon == "/usr/bin/shutterd", f"the daemon runs {daemon}")
    expect(worker.endswith("(deleted)"), f"the worker runs {worker}")
    return no_gap_when("handover")(results)


def worker_is_replaced(results):
    """A new worker went on in a new file; the receipt tells the gap of each source."""
    directory = results / "workerkilled"
    pids = {name: (directory / name).read_text().strip() for name in ("worker-before", "worker-after")}
    expect(pids["worker-before"] != pids["worker-after"] != "", f"the worker is the same: {pids}")
    recording = Recording(directory)
    receipt = recording.receipt
    expect(receipt["endReason"] == "stop_requested" and not receipt.get("forced"), f"it ended by {receipt['endReason']}")
    repaired = [bool(file.get("repaired")) for file in receipt["files"]]
    expect(repaired == [True, False], f"its files: {receipt['files']}")
    lengths = []
    for device in SOURCES:
        source = recording.source(device)
        gaps = [gap["durationSeconds"] for gap in source.get("gaps", []) if gap["reason"] == "restart"]
        expect(len(gaps) == 1 and 0 < gaps[0] < RESTART_S_MAX, f"{device}: {source.get('gaps')}")
        expect(source["captured"] == sum(source.get(key, 0) for key in ("written", "dropped", "lost")), f"{device}: {source}")
        lengths += gaps
    check.files_are_as_told(recording)
    return f"gaps of {seconds(lengths)}; {frames_and_samples(recording)}"


def nothing_after_the_stop(results):
    """No frame and no sound in a file is stamped later than the stop, and none that was due before is missing."""
    said = []
    for scene in SCENES:
        recording = Recording(results / scene)
        stop = datetime.fromisoformat(recording.receipt["requestedAt"]).timestamp()
        for device in SOURCES:
            source = recording.source(device)
            last = datetime.fromisoformat(source["lastTimestamp"]).timestamp()
            expect(last <= stop + 0.001, f"{scene}: {device} is told to end {last - stop:.3f} s after the stop")
            streams = recording.microphone_streams() if device == MICROPHONE else recording.camera_streams(device)
            late = recorded_until(*streams[-1]) - stop
            expect(late <= 0.002, f"{scene}: {device} is stamped {late:.3f} s after the stop")
            # A stall of the emulated machine that ends after the stop is a gap by the driver's count.
            told = [gap["durationSeconds"] for gap in source.get("gaps", [])]
            if not any(length >= -late - 0.5 for length in told):
                expect(late >= -1.0, f"{scene}: {device} ends {-late:.3f} s before the stop, and no gap tells why")
            said.append(late)
    return f"the last stamps lie {-max(said):.3f} to {-min(said):.3f} s before the stop"


def stop_drains(results):
    directory = results / "stopped"
    start, end = map(float, (directory / "stop-times").read_text().split())
    expect(end - start <= STOP_S_MAX, f"it took {end - start:.1f} s")
    unit = properties(directory / "unit")
    expect((unit["ActiveState"], unit["Result"], unit["ExecMainStatus"]) == ("inactive", "success", "0"), f"{unit}")
    running = (directory / "running").read_text()
    expect(not running, f"still running: {running.strip()}")
    return f"in {end - start:.1f} s; {recording_is_whole(directory, 'agent_shutdown')}"


def devices_are_free(results):
    for device in SOURCES:
        check.device_opens(device)(Recording(results / "stopped"))
    for scene in (*SCENES, "after-cut"):
        held = (results / scene / "held-after").read_text()
        expect(not held, f"after {scene}: {held}")


def starts_again(results):
    before, after = ((results / f"{which}-the-call").read_text().strip() for which in ("before", "after"))
    expect((before, after) == ("inactive", "active"), f"the service was {before}, then {after}")
    return recording_is_whole(results / "again", "stop_requested")


def stop_outlives_the_daemon(results):
    directory = results / "midstop"
    recording = Recording(directory)
    receipt = recording.receipt
    expect(recording.session["state"] == "finished", f"its state is {recording.session['state']}")
    expect(receipt["endReason"] == "stop_requested" and not receipt.get("forced"), f"it ended by {receipt['endReason']}")
    check.receipt_adds_up(recording)
    return frames_and_samples(recording)


def journal_tells_the_story(results):
    """journalctl SHUTTERD_SESSION=... has the lines of the daemons, the workers and the repair, and no other session's."""
    counts = []
    for scene in SCENES:
        lines = [json.loads(line) for line in (results / scene / "story").read_text().splitlines()]
        said = [line["MESSAGE"] for line in lines]
        expect(all(line["_TRANSPORT"] == "journal" and line["SYSLOG_IDENTIFIER"] == "shutterd" for line in lines),
               f"{scene}: not all are records of ours: {lines}")
        foreign = [text for text in said if any(f"session={other}" in text for other in SCENES if other != scene)]
        expect(not foreign, f"{scene}: lines of another session: {foreign}")
        rest = iter(said)
        steps = [step if isinstance(step, tuple) else (step,) for step in STORY]
        missing = [step for step in steps if not any(word in text for text in rest for word in step)]
        expect(not missing, f"{scene}: {missing[:1]} is not told, or not in its place: {said}")
        started = {int(line["SHUTTERD_PID"]) for line in lines if "worker started" in line["MESSAGE"]}
        own = {int(line["_PID"]) for line in lines if line["SHUTTERD_TARGET"].startswith("shutterd::worker::control")}
        expect(own == started, f"{scene}: lines of the workers {own} instead of {started}")
        daemons = {line["_PID"] for line in lines if line["SHUTTERD_TARGET"].startswith("shutterd::supervisor")}
        known = [results / scene / which for which in ("daemon-before", "daemon-after")]
        if all(file.exists() for file in known):
            known = {file.read_text().strip() for file in known}
            expect(daemons == known, f"{scene}: lines of the daemons {daemons} instead of {known}")
        units = {line.get("_SYSTEMD_UNIT") for line in lines if int(line["_PID"]) in own}
        expect(units == {"shutterd.service"}, f"{scene}: the units {units}")
        callers = [line["SHUTTERD_CALLER"] for line in lines if line.get("SHUTTERD_CALL") == "StartSession"]
        expect(callers == ["operator"], f"{scene}: started by {callers}")
        counts.append(f"{scene} {len(lines)}")
    killed = [json.loads(line) for line in (results / "workerkilled" / "story").read_text().splitlines()]
    for text, priority in (("has died", "3"), ("are being repaired", "4"), ("of the dead worker is kept", "6")):
        found = [line["PRIORITY"] for line in killed if text in line["MESSAGE"]]
        expect(found == [priority], f"workerkilled: {text!r} has the priorities {found}")
    return "lines: " + ", ".join(counts)


def power_cut_loses_little(results):
    recording = Recording(results / "after-cut")
    receipt = recording.receipt
    expect(recording.session["state"] == "finished", f"its state is {recording.session['state']}")
    expect(receipt.get("forced") and all(file["repaired"] for file in receipt["files"]), "the receipt says nothing of it")
    counted = frames_and_samples(recording)
    cut_at = float((results / "cut" / "clock").read_text())
    losses = [cut_at - recorded_until(*streams[-1]) for streams in
              [*(recording.camera_streams(device) for device in CAMERAS), recording.microphone_streams()]]
    expect(max(losses) <= CUT_LOSS_S_MAX, f"lost: {seconds(losses)}")
    return f"{receipt['endReason']}; lost: {seconds(losses)}; {counted}"


def recorded_until(file, stream):
    """Wall clock time, in seconds, of the last frame or sound block of a track."""
    shown = check.ffprobe(file, "-show_entries", "format_tags=creation_time:packet=pts_time", "-show_packets",
                          "-select_streams", str(stream["index"]))
    start = datetime.fromisoformat(shown["format"]["tags"]["creation_time"])
    return start.timestamp() + float(shown["packets"][-1]["pts_time"])


def recording_is_whole(directory, end_reason):
    recording = Recording(directory)
    receipt = recording.receipt
    expect(recording.session["state"] == "finished", f"its state is {recording.session['state']}")
    expect(receipt["endReason"] == end_reason, f"it ended by {receipt['endReason']}")
    expect(not receipt.get("forced"), "it was ended by force")
    expect(len(receipt["files"]) == 1 and not receipt["files"][0].get("repaired"), f"its files: {receipt['files']}")
    check.receipt_adds_up(recording)
    check.receipt_file_is_the_answer(recording)
    check.files_are_as_told(recording)
    counted = frames_and_samples(recording)
    # The MJPEG camera's frames follow each other as they were fed, whatever the driver counted.
    check.webcam_frames_are_the_fed_ones(recording)
    gaps = [(device, gap) for device in SOURCES for gap in recording.source(device).get("gaps", [])]
    long = [f"{device}: {gap}" for device, gap in gaps
            if gap["reason"] not in ("sequence", "overrun", "stalled") or gap["durationSeconds"] > GAP_S_MAX]
    expect(not long, f"the receipt tells of {'; '.join(long)}")
    missed = sum(recording.source(device).get("missed", 0) for device in CAMERAS)
    longest = max((gap["durationSeconds"] for _, gap in gaps), default=0)
    stalls = f"; the drivers missed {missed} frames, the longest gap is {longest:.2f} s" if gaps else ""
    return f"no gap by it, {counted}{stalls}"


def frames_and_samples(recording):
    """ffprobe counts what the receipt says."""
    for device in CAMERAS:
        check.frames_are_counted(device)(recording)
    check.samples_are_counted(recording)
    counts = [f"{recording.source(device)['written']} frames" for device in CAMERAS]
    return " + ".join([*counts, f"{recording.source(MICROPHONE)['written']} samples"])


def properties(file):
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


def seconds(losses):
    return ", ".join(f"{device} {length:.2f} s" for device, length in zip(SOURCES, losses))


POINTS = [
    ("the unit is active once the daemon is ready", unit_is_ready),
    ("systemd-analyze verify prints nothing", unit_verifies),
    (f"systemd-analyze security gives at most {EXPOSURE_MAX}", unit_is_hardened),
    ("an unprivileged client records all three devices over TCP", client_records),
    ("kill -9 of the daemon leaves no gap", no_gap_when("killed")),
    ("SIGSTOP of the daemon: the watchdog restarts it, and there is no gap", no_gap_when("hung")),
    ("kill -9 of a worker: a new one goes on in a new file, and the gap is told", worker_is_replaced),
    ("handover and a restart with another build leave no gap", handed_over_to_another_build),
    ("a stop that was accepted is finished though the daemon was killed", stop_outlives_the_daemon),
    ("systemctl stop drains: the file is whole, the receipt is there, nothing is left running", stop_drains),
    ("nothing that is stamped after a stop is in a file", nothing_after_the_stop),
    ("every device is free at the end of each", devices_are_free),
    ("journalctl SHUTTERD_SESSION=ID tells each session's whole story, and nothing of another", journal_tells_the_story),
    ("with the socket unit, a call starts the service, and it records", starts_again),
    ("a power cut: the file plays, and little is lost", power_cut_loses_little),
]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    results = Path(sys.argv[1])
    for scene in results.iterdir():
        # Where check.py looks for it.
        if scene.is_dir() and scene.name != "input" and not (scene / "input").exists():
            (scene / "input").symlink_to("../input")
    failed = 0
    for number, (what, point) in enumerate(POINTS, 1):
        try:
            detail = point(results)
            print(f"ok {number} - {what}" + (f" ({detail})" if detail else ""), flush=True)
        except (Failed, OSError, ValueError, KeyError, TypeError, subprocess.CalledProcessError) as error:
            failed += 1
            why = str(error) if isinstance(error, Failed) else repr(error)
            print(f"not ok {number} - {what}, {why}", flush=True)
    print(f"{len(POINTS) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
