"""The laboratory over gRPC: submit, watch, control and fetch sweeps; watch groups."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
from grpc import ServicerContext as Context

from services.common import scheduler
from services.common.groups import bounded, meta_of
from services.common.scheduler import Wait, suspends
from services.common.sending import STALLED_S
from services.lab.jobs import LONGEST_NAME, RUNNING, Jobs
from services.lab.retention import Retention
from services.lab.watch import Watchers
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.v1 import lab_pb2 as pb
from ultrafolio.rpc.v1 import lab_pb2_grpc
from ultrafolio.state.redis import RedisStore

LOOK_S = 0.2
MOST_UPLOADS = 4
"""Concurrent uploads of recordings; each holds a thread."""


class Lab(lab_pb2_grpc.LabServiceServicer):
    """store: with the laboratory's rights;  jobs: the sweeps;  retention: archives and deletes groups."""

    def __init__(self, store: RedisStore, jobs: Jobs, retention: Retention) -> None:
        self.store, self.jobs, self.watchers, self.retention = store, jobs, Watchers(store), retention
        self._uploads = threading.BoundedSemaphore(MOST_UPLOADS)

    def SubmitSweep(self, request: pb.SubmitSweepRequest, context: Context) -> pb.SubmitSweepResponse:
        bounded("name", len(request.name), LONGEST_NAME)
        job, cells = self.jobs.submit(request.plan, request.name)
        return pb.SubmitSweepResponse(sweep=job, cells=cells)

    def UploadRecording(self, requests: Iterator[pb.UploadRecordingRequest], context: Context) -> Any:
        if not self._uploads.acquire(blocking=False):
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "TOO_MANY",
                "uploads at a time",
                value=f"{MOST_UPLOADS} go on",
                allowed=f"{MOST_UPLOADS}",
                then="upload it again later",
            )
        try:
            path, size = self.jobs.recordings.keep(_in_time(requests, context))
        finally:
            self._uploads.release()
        return pb.UploadRecordingResponse(path=path, bytes=size)

    @suspends
    def WatchSweep(self, request: pb.WatchSweepRequest, context: Context) -> Iterator[pb.WatchSweepResponse | Wait]:
        said = None
        while context.is_active():
            now, why = self.jobs.news(request.sweep)
            message = pb.WatchSweepResponse(
                done=now.done, cells=now.cells, quarantined=now.quarantined, state=now.state
            )
            if message != said:
                said = message
                yield message
            if now.state not in (RUNNING, pb.SWEEP_STATE_PAUSED):
                return
            if why:
                raise StatusError(
                    grpc.StatusCode.ABORTED, "SWEEP_FAILED", "the sweep ended early", value=why, then="submit it again"
                )
            yield Wait(LOOK_S)

    def ControlSweep(self, request: pb.ControlSweepRequest, context: Context) -> pb.ControlSweepResponse:
        return pb.ControlSweepResponse(state=self.jobs.control(request.sweep, request.state))

    def ListSweeps(self, request: pb.ListSweepsRequest, context: Context) -> pb.ListSweepsResponse:
        sweeps = []
        for job in self.jobs.names():
            now = self.jobs.progress(job)
            sweeps.append(
                pb.Sweep(sweep=job, name=self.jobs.name(job), state=now.state, cells=now.cells, done=now.done)
            )
        return pb.ListSweepsResponse(sweeps=sweeps)

    @suspends
    def FetchResults(self, request: pb.FetchResultsRequest, context: Context) -> Iterator[pb.FetchResultsResponse]:
        for piece in self.jobs.results(request.sweep):
            yield pb.FetchResultsResponse(piece=piece)

    @suspends
    def Watch(self, request: pb.WatchRequest, context: Context) -> Iterator[pb.WatchResponse | Wait]:
        meta_of(self.store, request.group)
        yield from self.watchers.follow(request.group, request.after, request.once)

    def ListGroups(self, request: pb.ListGroupsRequest, context: Context) -> pb.ListGroupsResponse:
        sizes = [pb.GroupSize(**size._asdict()) for size in self.retention.sizes()] if request.sizes else []
        return pb.ListGroupsResponse(groups=self.store.groups(), sizes=sizes)

    def ArchiveGroup(self, request: pb.ArchiveGroupRequest, context: Context) -> pb.ArchiveGroupResponse:
        return pb.ArchiveGroupResponse(**self.retention.archive(request.group)._asdict())

    def DeleteGroup(self, request: pb.DeleteGroupRequest, context: Context) -> pb.DeleteGroupResponse:
        saved = self.retention.archive(request.group)._asdict() if request.archive else None
        self.retention.delete(request.group)
        return pb.DeleteGroupResponse(archive=pb.ArchiveGroupResponse(**saved) if saved else None)


def _in_time(requests: Iterator[pb.UploadRecordingRequest], context: Context) -> Iterator[bytes]:
    """Yields the pieces of an upload. Cancels the call if the client sends none for STALLED_S."""
    while True:
        stalled = scheduler.DEFAULT.timer.at(STALLED_S, context.cancel)
        try:
            piece = next(requests, None)
        finally:
            scheduler.DEFAULT.timer.cancel(stalled)
        if piece is None:
            return
        yield piece.piece
