"""Load over gRPC with h2load: a closed loop of ModelInfer calls, the same client for every system.

h2load is written in C and takes a tenth of the CPU time that a client in Python takes, which shares
the cores with what it measures. It knows nothing of gRPC and takes a failed call, HTTP status 200
with a `grpc-status`, for a success. So one call is checked for its content before, and afterwards
the bytes are counted: only a good answer has a message.
"""

from __future__ import annotations

import re
import shutil
import struct
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from benchmarks.measurement import GrpcCall, Measurement, System, WrongAnswer
from benchmarks.processes import CpuClock, run_generator
from benchmarks.ratios import SAMPLES_FOR_P99, percentile
from stellwerk.inference.v2 import grpc_service_pb2 as pb

METHOD = "/inference.GRPCInferenceService/ModelInfer"
# A call that takes longer than this is an error, not a slow answer.
DEADLINE_SECONDS = 30
# A window of 2^30 bytes: what is measured is the servers' flow control, not the client's.
_WINDOW_BITS = 30
_COUNTS = re.compile(r"requests: \d+ total, (\d+) started, (\d+) done, (\d+) succeeded")
_DATA = re.compile(r"traffic: .* \((\d+)\) data")
_FINISHED = re.compile(r"finished in ([\d.]+)(us|ms|s), ")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True)
class Sent:
    """What h2load says: calls that got HTTP status 200, calls that failed below it, bytes of
    messages, seconds.
    """

    succeeded: int
    failed: int
    data_bytes: int
    seconds: float
    # Calls under way when the time was up; a part of their answers may be among the bytes.
    unfinished: int = 0


def check(name: str, call: GrpcCall) -> int:
    """The length of the answer on the wire; raises WrongAnswer unless one call is answered OK and
    right.
    """
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(call.address, options=options) as channel:
        try:
            # Bytes in, bytes out, which the type stubs do not know.
            ask: Callable[..., bytes] = channel.unary_unary(METHOD)  # type: ignore[assignment]
            answer = ask(
                call.request, timeout=DEADLINE_SECONDS, metadata=tuple(call.metadata.items())
            )
        except grpc.RpcError as error:
            raise WrongAnswer(f"{name}: {error.code().name}: {error.details()}") from None
    if not call.right(pb.ModelInferResponse.FromString(answer)):
        raise WrongAnswer(f"{name} gave another answer than the right one")
    return len(_frame(answer))


def measure(
    system: System, call: GrpcCall, in_flight: int, seconds: float, connections: int = 1
) -> Measurement:
    """Keeps `in_flight` calls under way, spread evenly over the connections.

    Raises WrongAnswer if the answers are not all like a checked one.
    """
    if shutil.which("h2load") is None:
        raise RuntimeError("h2load is not installed: apt-get install nghttp2-client")
    answer_bytes = check(system.name, call)
    with tempfile.TemporaryDirectory() as directory:
        body, log = Path(directory) / "body", Path(directory) / "log"
        body.write_bytes(_frame(call.request))
        load = [f"-c{connections}", f"-m{in_flight // connections}"]
        command = _command(call, body, log, [*load, f"-D{max(1, round(seconds))}"])
        clock = CpuClock(system.parts)
        output, own = run_generator(command)
        spent = clock.spent()
        latencies = [int(line.split("\t")[2]) / 1000 for line in log.read_text().splitlines()]
    return measurement(system.name, parse(output), answer_bytes, latencies, spent, own)


def _command(call: GrpcCall, body: Path, log: Path, load: Sequence[str]) -> list[str]:
    headers = {
        "content-type": "application/grpc",
        "te": "trailers",
        "grpc-timeout": f"{DEADLINE_SECONDS}S",
    }
    command = ["h2load", "-t1", *load, "-d", str(body)]
    command += [f"-w{_WINDOW_BITS}", f"-W{_WINDOW_BITS}", f"--log-file={log}"]
    for name, value in {**headers, **call.metadata}.items():
        command += ["-H", f"{name}: {value}"]
    return [*command, f"http://{call.address}{METHOD}"]


def _frame(message: bytes) -> bytes:
    """A message as gRPC sends it: not compressed, its length, itself."""
    return struct.pack(">BI", 0, len(message)) + message


def parse(output: str) -> Sent:
    """The numbers in what h2load prints; raises WrongAnswer if it could not even connect."""
    counts, data, finished = _COUNTS.search(output), _DATA.search(output), _FINISHED.search(output)
    if counts is None or data is None or finished is None or not float(finished[1]):
        raise WrongAnswer(f"h2load measured nothing: {output[-500:]}")
    started, done, succeeded = map(int, counts.groups())
    seconds = float(finished[1]) * _UNITS[finished[2]]
    return Sent(succeeded, done - succeeded, int(data[1]), seconds, started - done)


def measurement(
    name: str,
    sent: Sent,
    answer_bytes: int,
    latencies: Sequence[float],
    cpu: Mapping[str, float],
    own: float = 0.0,
) -> Measurement:
    """A measurement from h2load's words. A call without a message was refused with a status and
    counts as an error.

    `latencies` are milliseconds of all calls, `own` is h2load's CPU time in seconds. Raises
    WrongAnswer where none was answered well, or where the answers are longer than the checked one,
    so that good ones cannot be told from failed ones.
    """
    answered = min(sent.succeeded, sent.data_bytes // answer_bytes)
    if sent.data_bytes > (sent.succeeded + sent.unfinished) * answer_bytes:
        raise WrongAnswer(
            f"{name}: answers differ in length, {sent.data_bytes} bytes in {sent.succeeded} answers"
        )
    middle = percentile(latencies, 0.5)
    if not answered or middle is None:
        raise WrongAnswer(f"{name} answered none of {sent.succeeded + sent.failed} calls well")
    return Measurement(
        system=name,
        requests=answered,
        errors=sent.succeeded - answered + sent.failed,
        seconds=sent.seconds,
        per_second=answered / sent.seconds,
        p50=middle,
        p99=percentile(latencies, 0.99, needed=SAMPLES_FOR_P99),
        cpu=1000 * sum(cpu.values()) / answered,
        cpu_parts={part: 1000 * spent / answered for part, spent in cpu.items()},
        generator=own / sent.seconds,
    )
