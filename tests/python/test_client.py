#!/usr/bin/env python3
"""The API as a client sees it that shares no code with the agent: grpcio, from the proto file alone.

Run by run.sh, which makes the stubs. One agent with synthetic devices serves all tests; each test
that records has a session of its own and stops it.
"""

import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import unittest
from datetime import datetime, timedelta, timezone
from pathlib import Path

import grpc
from google.protobuf import json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from shutterd.v1 import agent_pb2, agent_pb2_grpc

REPOSITORY = Path(__file__).resolve().parents[2]
SERVICE = "shutterd.v1.CaptureAgent"
SERVING = health_pb2.HealthCheckResponse.SERVING
# Every call has a deadline: a test that waits for ever says nothing.
WAIT_S = 30

CONFIG = """\
state_dir = "{dir}/state"
runtime_dir = "{dir}/run"
media_dir = "{dir}/media"

[api]
tcp = "127.0.0.1:0"

[http]
listen = "off"

[log]
format = "json"

[[devices]]
id = "camera"
name = "Integrated Webcam"
kind = "synthetic"
media = "video"
width = 320
height = 180

[[devices]]
id = "microphone"
name = "Built-in Microphone"
kind = "synthetic"
media = "audio"
"""


class Agent:
    """A running agent in a directory of its own."""

    def __init__(self):
        self.place = tempfile.TemporaryDirectory(prefix="shutterd-python-")
        self.dir = Path(self.place.name)
        config = self.dir / "config.toml"
        config.write_text(CONFIG.format(dir=self.dir))
        self.process = subprocess.Popen(
            [os.environ["SHUTTERD_BIN"], "serve", "--config", str(config)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        self.log = []
        self.tcp = None
        self.ready = threading.Event()
        self.reader = threading.Thread(target=self.read_log)
        self.reader.start()
        self.ready.wait(WAIT_S)
        if self.tcp is None:
            self.end()
            sys.exit("the agent did not become ready:\n" + "".join(self.log))
        self.unix = f"unix:{self.dir}/run/api.sock"
        self.token = (self.dir / "state" / "operator.token").read_text().strip()

    def read_log(self):
        """Takes what it logs, and where it listens once it is ready."""
        for line in self.process.stderr:
            self.log.append(line)
            if self.tcp is None and '"ready"' in line:
                self.tcp = json.loads(line)["tcp"]
                self.ready.set()
        self.ready.set()

    def end(self):
        """Ends it in good order; its exit code."""
        self.process.terminate()
        code = self.process.wait(WAIT_S)
        self.reader.join()
        self.place.cleanup()
        return code


agent = None


def setUpModule():
    global agent
    agent = Agent()


def tearDownModule():
    code = agent.end()
    if code != 0:
        raise AssertionError(f"the agent ended with {code}:\n" + "".join(agent.log))


def bearer(token):
    return [("authorization", f"Bearer {token}")]


def session_file():
    """The contract's sample session, with an id, a time and a microphone of its own; its media stays."""
    session = json.loads((REPOSITORY / "tests/data/session.json").read_text())
    session["config"]["removeMedia"] = False
    now = datetime.now(timezone.utc)
    session["_id"] = secrets.token_hex(12)
    session["timestamp"] = rfc3339(now)
    session["meta"]["expires"] = rfc3339(now + timedelta(hours=1))
    session["sources"].append(
        {"id": "microphone-1", "name": "Built-in Microphone", "type": "audio", "device": "local_microphone"}
    )
    return session


def rfc3339(time):
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def start_request(session):
    request = agent_pb2.StartSessionRequest()
    json_format.ParseDict(session, request.session)
    return request


class OverTcp(unittest.TestCase):
    def setUp(self):
        self.channel = grpc.insecure_channel(agent.tcp)
        self.addCleanup(self.channel.close)
        self.stub = agent_pb2_grpc.CaptureAgentStub(self.channel)

    def call(self, method, request, token=None):
        token = agent.token if token is None else token
        return getattr(self.stub, method)(request, timeout=WAIT_S, metadata=bearer(token))

    def refused(self, code, call):
        with self.assertRaises(grpc.RpcError) as refusal:
            call()
        self.assertEqual(refusal.exception.code(), code, refusal.exception.details())
        self.assertTrue(refusal.exception.details())

    def test_health_is_told_without_a_token(self):
        health = health_pb2_grpc.HealthStub(self.channel)
        for service in ["", SERVICE]:
            request = health_pb2.HealthCheckRequest(service=service)
            self.assertEqual(health.Check(request, timeout=WAIT_S).status, SERVING)
            watch = health.Watch(request, timeout=WAIT_S)
            self.assertEqual(next(watch).status, SERVING)
            watch.cancel()
        unknown = health_pb2.HealthCheckRequest(service="no.such.Service")
        self.refused(grpc.StatusCode.NOT_FOUND, lambda: health.Check(unknown, timeout=WAIT_S))

    def test_everything_else_needs_the_token(self):
        request = agent_pb2.GetAgentRequest()
        unauthenticated = grpc.StatusCode.UNAUTHENTICATED
        self.refused(unauthenticated, lambda: self.stub.GetAgent(request, timeout=WAIT_S))
        for wrong in ["", "wrong", agent.token[:-1], agent.token + "0", "0" * 64]:
            self.refused(unauthenticated, lambda token=wrong: self.call("GetAgent", request, token))
        watch = agent_pb2.WatchAgentRequest()
        self.refused(unauthenticated, lambda: next(self.stub.WatchAgent(watch, timeout=WAIT_S)))
        self.assertEqual(self.call("GetAgent", request).state, "serving")

    def test_bad_input_is_refused_by_name(self):
        session = session_file() | {"_id": "../escape"}
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        self.refused(invalid, lambda: self.call("StartSession", start_request(session)))
        session = session_file() | {"sources": []}
        self.refused(invalid, lambda: self.call("StartSession", start_request(session)))
        unknown = agent_pb2.StopSessionRequest(session_id=secrets.token_hex(12))
        self.refused(grpc.StatusCode.NOT_FOUND, lambda: self.call("StopSession", unknown))

    def test_a_session_is_recorded_from_start_to_receipt(self):
        request = start_request(session_file())
        started = self.call("StartSession", request).session
        self.addCleanup(self.stop, started.id)
        self.assertEqual(started.state, "active")
        self.assertEqual(started.meta.worker_state, "working")
        self.assertEqual(as_handed_in(started), as_handed_in(request.session))

        events = self.call("WatchSession", agent_pb2.WatchSessionRequest(session_id=started.id))
        for event in events:
            if event.progress.captured_seconds >= 1 and event.progress.durable_bytes > 0:
                break
        stopped = self.stop(started.id)
        *_, last = events
        self.assertEqual(last.session, stopped.session)
        self.assertEqual(last.receipt, stopped.receipt)

        self.assertFalse(stopped.already_finished)
        self.assertEqual(stopped.session.state, "finished")
        self.assertEqual(stopped.session.meta.worker_state, "stopped")
        self.assertGreaterEqual(stopped.session.duration, 1)
        self.check_receipt(stopped.receipt, [source.id for source in started.sources])
        self.check_media(started.id, stopped.receipt)

        again = self.stop(started.id)
        self.assertTrue(again.already_finished)
        self.assertEqual(again.receipt, stopped.receipt)
        shown = self.call("GetSession", agent_pb2.GetSessionRequest(session_id=started.id))
        self.assertEqual(shown.receipt, stopped.receipt)

    def check_receipt(self, receipt, sources):
        self.assertEqual(receipt.end_reason, "stop_requested")
        self.assertFalse(receipt.forced)
        self.assertTrue(receipt.requested_at <= receipt.released_at <= receipt.finalized_at)
        self.assertFalse(receipt.HasField("removal"))
        self.assertEqual([source.id for source in receipt.sources], sources)
        for source in receipt.sources:
            self.assertGreater(source.captured, 0)
            self.assertEqual((source.written, source.dropped, source.lost), (source.captured, 0, 0))

    def check_media(self, session, receipt):
        """The files are there as the receipt says, play, and ReadMedia gives their bytes."""
        self.assertEqual(len(receipt.files), 1)
        path = Path(receipt.files[0].path)
        self.assertEqual(path, agent.dir / "media" / session / f"{session}-0001.mkv")
        content = path.read_bytes()
        self.assertEqual(len(content), receipt.files[0].bytes)
        pieces = self.call("ReadMedia", agent_pb2.ReadMediaRequest(session_id=session))
        self.assertEqual(b"".join(piece.content for piece in pieces), content)
        counted = subprocess.run(
            [REPOSITORY / "scripts/play-back.py", path.parent / "receipt.json"],
            capture_output=True, text=True, check=False,
        )
        self.assertEqual(counted.returncode, 0, counted.stdout + counted.stderr)

    def stop(self, session):
        return self.call("StopSession", agent_pb2.StopSessionRequest(session_id=session))

    def test_reflection_describes_the_services(self):
        authorized = grpc.intercept_channel(self.channel, WithToken())
        reflected = ProtoReflectionDescriptorDatabase(authorized)
        self.assertIn(SERVICE, reflected.get_services())
        self.assertIn("grpc.health.v1.Health", reflected.get_services())
        file = reflected.FindFileContainingSymbol(SERVICE)
        methods = [method.name for service in file.service for method in service.method]
        own = agent_pb2.DESCRIPTOR.services_by_name["CaptureAgent"].methods
        self.assertEqual(methods, [method.name for method in own])


class OverTheUnixSocket(unittest.TestCase):
    def test_the_own_user_needs_no_token(self):
        # Unless it is told otherwise, grpcio names the socket's path as the authority, which is none.
        with grpc.insecure_channel(agent.unix, [("grpc.default_authority", "localhost")]) as channel:
            stub = agent_pb2_grpc.CaptureAgentStub(channel)
            devices = stub.ListDevices(agent_pb2.ListDevicesRequest(), timeout=WAIT_S).devices
            self.assertLessEqual({"camera", "microphone"}, {device.id for device in devices})


class WithToken(grpc.StreamStreamClientInterceptor):
    def intercept_stream_stream(self, continuation, details, requests):
        return continuation(details._replace(metadata=bearer(agent.token)), requests)


def as_handed_in(session):
    """The session without what the agent owns."""
    message = json_format.MessageToDict(session)
    message.pop("state")
    message["meta"] = {"expires": message["meta"]["expires"]}
    return message


if __name__ == "__main__":
    result = unittest.main(exit=False, verbosity=2).result
    bad = len(result.failures) + len(result.errors)
    sys.stderr.flush()
    print(f"{max(result.testsRun - bad, 0)} passed, {bad} failed")
    sys.exit(0 if result.testsRun and not bad else 1)
