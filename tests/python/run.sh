#!/usr/bin/env bash
# Tests the API with a client that isn't ours: Python's grpcio, with stubs made from the proto file.
# The last line is `N passed, M failed`.
#
# SHUTTERD_BIN  the binary to test  (target/debug/shutterd)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

target=${CARGO_TARGET_DIR:-target}
export SHUTTERD_BIN=${SHUTTERD_BIN:-$target/debug/shutterd}
requirements=tests/python/requirements.txt
# Named by what is installed in it, so that a change of that makes a new one.
venv=$target/python-$(sha256sum "$requirements" | cut -c1-16)
stubs=$target/python-stubs

[[ -x $SHUTTERD_BIN ]] || { echo "no binary $SHUTTERD_BIN: run cargo build first" >&2; exit 2; }
if [[ ! -e $venv/complete ]]; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
  touch "$venv/complete"
fi
rm -rf "$stubs"
mkdir -p "$stubs"
"$venv/bin/python" -m grpc_tools.protoc --proto_path=proto --python_out="$stubs" --grpc_python_out="$stubs" \
  shutterd/v1/agent.proto
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$stubs exec "$venv/bin/python" tests/python/test_client.py
