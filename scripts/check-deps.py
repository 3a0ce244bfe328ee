#!/usr/bin/env python3
"""Checks what Cargo.lock brings in against deny.toml: licences, sources, banned crates.

A crate counts when it is built for one of deny.toml's targets. Beyond deny.toml, the crates of the
API's stack must each be there in one version only: two of them in one program don't fit together.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

ONE_VERSION = ["tokio", "tonic", "prost", "prost-types", "hyper", "h2", "http", "rustls"]


def main():
    rules = tomllib.loads(Path("deny.toml").read_text())
    packages = {}
    for target in rules["graph"]["targets"]:
        packages |= packages_for(target)
    problems = []
    for package in packages.values():
        problems += problems_of(package, rules)
    versions = defaultdict(set)
    for package in packages.values():
        versions[package["name"]].add(package["version"])
    for name in ONE_VERSION:
        if len(versions.get(name, [])) > 1:
            problems.append(f"{name} is there in the versions {', '.join(sorted(versions[name]))}: use one")
    for problem in sorted(problems):
        print(f"check-deps: {problem}", file=sys.stderr)
    print(f"check-deps: {len(packages)} crates, {len(problems)} problems")
    return 1 if problems else 0


def packages_for(target):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    built = {node["id"] for node in metadata["resolve"]["nodes"]}
    return {package["id"]: package for package in metadata["packages"] if package["id"] in built}


def problems_of(package, rules):
    name = f"{package['name']} {package['version']}"
    licence = package["license"]
    if not licence or not is_allowed(licence, set(rules["licenses"]["allow"])):
        yield f"{name} has the licence {licence!r}, which deny.toml doesn't allow"
    source = package["source"]
    registries = ["registry+" + url for url in rules["sources"]["allow-registry"]]
    # The project itself has no source.
    if source is not None and source not in registries:
        yield f"{name} comes from {source}, which deny.toml doesn't allow"
    for ban in rules["bans"]["deny"]:
        if ban["crate"] == package["name"]:
            yield f"{name} is banned: {ban['reason']}"


def is_allowed(expression, allowed):
    """Whether an SPDX expression can be met by the allowed licences. `/` is an old way to say OR."""
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    met, rest = any_of(tokens, allowed)
    return met and not rest


def any_of(tokens, allowed):
    met, rest = all_of(tokens, allowed)
    while rest[:1] == ["OR"]:
        other, rest = all_of(rest[1:], allowed)
        met = met or other
    return met, rest


def all_of(tokens, allowed):
    met, rest = one(tokens, allowed)
    while rest[:1] == ["AND"]:
        other, rest = one(rest[1:], allowed)
        met = met and other
    return met, rest


def one(tokens, allowed):
    if tokens[:1] == ["("]:
        met, rest = any_of(tokens[1:], allowed)
        return met and rest[:1] == [")"], rest[1:]
    if tokens[1:2] == ["WITH"]:
        return " ".join(tokens[:3]) in allowed, tokens[3:]
    return tokens[:1] != [] and tokens[0] in allowed, tokens[1:]


if __name__ == "__main__":
    sys.exit(main())
