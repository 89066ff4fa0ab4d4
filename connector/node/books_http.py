"""The ledger and the doctor over HTTP.

GET  /api/ledger          what the ledger is, its state, and how far it is behind
POST /api/ledger/open     an empty ledger may be filled from the journal
POST /api/ledger/repair   what is pending there and known to nobody is voided
GET  /api/doctor          the books are examined; nothing is changed
GET  /api/jobs/NUMBER     what takes longer than one answer (202) has its result here
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from connector.errors import Unavailable
from connector.limits import BACKOFF_MAX_S
from connector.node.api import change, json, read
from connector.node.books import Books
from connector.node.clerk import Refused
from connector.node.doctor import Doctor
from connector.node.jobs import Job, Jobs


class BooksHttp:
    """Answers for one node's ledger."""

    def __init__(self, name: str, books: Books, doctor: Doctor, jobs: Jobs) -> None:
        self._name = name
        self._books = books
        self._doctor = doctor
        self._jobs = jobs

    def routes(self) -> list[BaseRoute]:
        """Where they are."""
        return [
            Route("/api/ledger", read(self.ledger)),
            Route("/api/ledger/open", change(self.open), methods=["POST"]),
            Route("/api/ledger/repair", change(self.repair), methods=["POST"]),
            Route("/api/doctor", read(self.doctor)),
            Route("/api/jobs/{number:int}", read(self.job)),
        ]

    async def ledger(self, request: Request) -> object:
        """What it is, and how it does."""
        status = self._books.ledger_status()
        poster = self._books.poster
        return {
            "node": self._name,
            "ledger": self._books.ledger_name or None,
            "state": status.state if poster is not None else "off",
            "reason": status.reason,
            "posted": 0 if poster is None else poster.posted,
            "unposted": {"entries": status.entries, "octets": status.octets, "age_ms": status.age_ms},
            "requests": 0 if poster is None else poster.requests,
            "transfers": 0 if poster is None else poster.transfers,
        }

    async def open(self, request: Request) -> object:
        """A person says that an empty ledger is meant to be new."""
        poster = self._books.poster
        if poster is None:
            raise Refused(409, "this node keeps no ledger (journal.sync is off)")
        if poster.ledger is not None:
            raise Refused(409, "the ledger is open already")
        if not poster.is_empty:
            reason = poster.alarm or "it has not been reached"
            raise Refused(409, f"the ledger does not wait for a confirmation: {reason}")
        poster.fills_empty = True
        return {"confirmed": True, "retried_within_s": BACKOFF_MAX_S}

    async def doctor(self, request: Request) -> object:
        """Examine the books."""
        return await self._report(self._jobs.start("doctor", self._doctor.examine))

    async def repair(self, request: Request) -> object:
        """Void orphans."""
        return await self._report(self._jobs.start("repair", self._doctor.repair))

    async def job(self, request: Request) -> object:
        """The newest job."""
        job = self._jobs.newest
        if job is None or job.number != request.path_params["number"]:
            raise Refused(404, "no such job, or a newer one has taken its place")
        return await self._report(job)

    async def _report(self, job: Job | None) -> Response:
        if job is None:
            raise Refused(409, "the node is busy with another job: ask again when it is done")
        if not await job.wait():
            return json({"job": f"/api/jobs/{job.number}", "state": "under way"}, 202)
        if job.error is not None:
            raise Unavailable(str(job.error))
        return json(job.result)
