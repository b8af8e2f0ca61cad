"""The laboratory over gRPC: submit, watch, control and fetch sweeps; watch groups."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import msgspec

from services.groups import in_words, meta_of
from services.lab.jobs import RUNNING, Jobs
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.v1 import lab_pb2 as pb
from ultrafolio.rpc.v1 import lab_pb2_grpc
from ultrafolio.state.events import decode
from ultrafolio.state.redis import RedisStore

LOOK_S = 0.2
BLOCK_MS = 500


class Lab(lab_pb2_grpc.LabServiceServicer):
    """store: with the laboratory's rights;  jobs: the sweeps."""

    def __init__(self, store: RedisStore, jobs: Jobs) -> None:
        self.store, self.jobs = store, jobs

    def SubmitSweep(self, request: pb.SubmitSweepRequest, context: Any) -> pb.SubmitSweepResponse:
        job, cells = self.jobs.submit(request.plan, request.name)
        return pb.SubmitSweepResponse(sweep=job, cells=cells)

    def UploadRecording(self, requests: Iterator[pb.UploadRecordingRequest], context: Any) -> Any:
        path, size = self.jobs.recordings.keep(request.piece for request in requests)
        return pb.UploadRecordingResponse(path=path, bytes=size)

    def WatchSweep(self, request: pb.WatchSweepRequest, context: Any) -> Iterator[pb.WatchSweepResponse]:
        said = None
        while context.is_active():
            now = self.jobs.progress(request.sweep)
            message = pb.WatchSweepResponse(
                done=now.done, cells=now.cells, quarantined=now.quarantined, state=now.state
            )
            if message != said:
                said = message
                yield message
            if now.state not in (RUNNING, pb.SWEEP_STATE_PAUSED):
                return
            why = self.jobs.failure(request.sweep)
            if why:
                raise StatusError(
                    grpc.StatusCode.ABORTED, "SWEEP_FAILED", "the sweep ended early", value=why, then="submit it again"
                )
            time.sleep(LOOK_S)

    def ControlSweep(self, request: pb.ControlSweepRequest, context: Any) -> pb.ControlSweepResponse:
        return pb.ControlSweepResponse(state=self.jobs.control(request.sweep, request.state))

    def ListSweeps(self, request: pb.ListSweepsRequest, context: Any) -> pb.ListSweepsResponse:
        sweeps = []
        for job in self.jobs.names():
            now = self.jobs.progress(job)
            sweeps.append(
                pb.Sweep(sweep=job, name=self.jobs.name(job), state=now.state, cells=now.cells, done=now.done)
            )
        return pb.ListSweepsResponse(sweeps=sweeps)

    def FetchResults(self, request: pb.FetchResultsRequest, context: Any) -> Iterator[pb.FetchResultsResponse]:
        for piece in self.jobs.results(request.sweep):
            yield pb.FetchResultsResponse(piece=piece)

    def Watch(self, request: pb.WatchRequest, context: Any) -> Iterator[pb.WatchResponse]:
        with in_words():
            meta_of(self.store, request.group)
            after = request.after or "0"
            while context.is_active():
                for event in self.store.events(request.group, after, 0 if request.once else BLOCK_MS):
                    after = event.id
                    yield pb.WatchResponse(id=event.id, event=msgspec.json.encode(decode(event.data)))
                if request.once:
                    return

    def ListGroups(self, request: pb.ListGroupsRequest, context: Any) -> pb.ListGroupsResponse:
        with in_words():
            return pb.ListGroupsResponse(groups=self.store.groups())
