#!/usr/bin/env python3
"""Plays the files of a receipt with ffprobe, and compares what it counts with the receipt.

    scripts/play-back.py RECEIPT.json

A camera's track must hold as many packets as the receipt says were written, a microphone's as many
samples as were written or filled in as silence. Prints a line per source; the exit code is 1 when
one differs or ffprobe complains.
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path


def main(receipt_path):
    receipt = json.loads(Path(receipt_path).read_text())
    found, complaints = Counter(), []
    for file in receipt["files"]:
        counted, said = count(file["path"])
        found += counted
        complaints += said
    print("played back with ffprobe:")
    all_equal = bool(receipt["sources"])
    for source in receipt["sources"]:
        unit, expected = expectation(source)
        equal = found[source["id"]] == expected
        all_equal = all_equal and equal
        verdict = "as the receipt says" if equal else f"but the receipt says {expected}"
        print(f"  {source['device']}: {found[source['id']]} {unit}, {verdict}")
    for complaint in complaints:
        print(f"  ffprobe complains: {complaint}")
    return 0 if all_equal and not complaints else 1


def expectation(source):
    if source["type"] == "video":
        return "frames", source["written"]
    return "samples", source["written"] + source["filled"]


def count(path):
    """Frames or samples by the id of the source, and what ffprobe complains about."""
    streams, complaints = ffprobe("-count_packets", "-show_streams", path)
    found = Counter()
    for stream in streams["streams"]:
        source = stream.get("tags", {}).get("SOURCE_ID")
        if stream["codec_type"] == "video":
            found[source] += int(stream["nb_read_packets"])
        else:
            which = ["-select_streams", str(stream["index"]), "-show_entries", "frame=nb_samples"]
            frames, more = ffprobe(*which, path)
            found[source] += sum(frame["nb_samples"] for frame in frames["frames"])
            complaints += more
    return found, complaints


def ffprobe(*arguments):
    command = ["ffprobe", "-v", "error", "-of", "json", *arguments]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    complaints = ended.stderr.splitlines()
    if ended.returncode != 0:
        sys.exit(f"ffprobe can't play {arguments[-1]}: {'; '.join(complaints)}")
    return json.loads(ended.stdout), complaints


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
