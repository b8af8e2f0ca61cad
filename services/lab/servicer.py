"""The laboratory over gRPC: submit, watch, control and fetch sweeps; watch groups."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc

from services.common import parking
from services.common.calls import STALLED_S
from services.common.groups import bounded, in_words, meta_of
from services.common.parking import Wait, parks
from services.lab.cutting import Keeper
from services.lab.jobs import LONGEST_NAME, RUNNING, Jobs
from services.lab.watch import Watchers
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.v1 import lab_pb2 as pb
from ultrafolio.rpc.v1 import lab_pb2_grpc
from ultrafolio.state.redis import RedisStore

LOOK_S = 0.2
MOST_UPLOADS = 4
"""Recordings that are uploaded at a time; each holds a thread."""


class Lab(lab_pb2_grpc.LabServiceServicer):
    """store: with the laboratory's rights;  jobs: the sweeps;  keeper: what cuts, archives and deletes."""

    def __init__(self, store: RedisStore, jobs: Jobs, keeper: Keeper) -> None:
        self.store, self.jobs, self.watchers, self.keeper = store, jobs, Watchers(store), keeper
        self._uploads = threading.BoundedSemaphore(MOST_UPLOADS)

    def SubmitSweep(self, request: pb.SubmitSweepRequest, context: Any) -> pb.SubmitSweepResponse:
        bounded("name", len(request.name), LONGEST_NAME)
        job, cells = self.jobs.submit(request.plan, request.name)
        return pb.SubmitSweepResponse(sweep=job, cells=cells)

    def UploadRecording(self, requests: Iterator[pb.UploadRecordingRequest], context: Any) -> Any:
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

    @parks
    def WatchSweep(self, request: pb.WatchSweepRequest, context: Any) -> Iterator[pb.WatchSweepResponse | Wait]:
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

    @parks
    def FetchResults(self, request: pb.FetchResultsRequest, context: Any) -> Iterator[pb.FetchResultsResponse]:
        for piece in self.jobs.results(request.sweep):
            yield pb.FetchResultsResponse(piece=piece)

    @parks
    def Watch(self, request: pb.WatchRequest, context: Any) -> Iterator[pb.WatchResponse | Wait]:
        with in_words():
            meta_of(self.store, request.group)
            yield from self.watchers.follow(request.group, request.after, request.once)

    def ListGroups(self, request: pb.ListGroupsRequest, context: Any) -> pb.ListGroupsResponse:
        with in_words():
            sizes = [pb.GroupSize(**size._asdict()) for size in self.keeper.sizes()] if request.sizes else []
            return pb.ListGroupsResponse(groups=self.store.groups(), sizes=sizes)

    def ArchiveGroup(self, request: pb.ArchiveGroupRequest, context: Any) -> pb.ArchiveGroupResponse:
        with in_words():
            return pb.ArchiveGroupResponse(**self.keeper.archive(request.group)._asdict())

    def DeleteGroup(self, request: pb.DeleteGroupRequest, context: Any) -> pb.DeleteGroupResponse:
        with in_words():
            saved = self.keeper.archive(request.group)._asdict() if request.archive else None
            self.keeper.delete(request.group)
        return pb.DeleteGroupResponse(archive=pb.ArchiveGroupResponse(**saved) if saved else None)


def _in_time(requests: Iterator[pb.UploadRecordingRequest], context: Any) -> Iterator[bytes]:
    """The pieces of an upload; a client that sends none for STALLED_S ends the call."""
    while True:
        stalled = parking.HERE.alarm.at(STALLED_S, context.cancel)
        try:
            piece = next(requests, None)
        finally:
            parking.HERE.alarm.cancel(stalled)
        if piece is None:
            return
        yield piece.piece
