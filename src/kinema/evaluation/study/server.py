"""The pages of a study, and the few addresses behind them.

| address | does |
|---|---|
| ``GET /`` | the page; a rater's link is ``/#TOKEN``: what follows ``#`` never reaches a log |
| ``POST /api/raters`` | takes consent and makes a rater, unless the study is closed |
| ``POST /api/consent`` | takes the consent of a rater who came by a link |
| ``GET /api/session`` | the rater's own trials, and which are answered |
| ``POST /api/votes`` | stores an answer, once per trial |
| ``GET /clips/NAME`` | a clip |

A rater shows the token as ``Authorization: Bearer TOKEN``. No address gives an answer back. Addresses in the page are relative,
so that a proxy may serve a study below any path.
"""

import socket
from collections.abc import Sequence
from functools import lru_cache, partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import jinja2
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Response
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kinema.core.errors import EvaluationError
from kinema.evaluation.study.design import RANKED, order_for
from kinema.evaluation.study.folder import CLIPS_NAME, Study, Trial
from kinema.evaluation.study.store import DuplicateVoteError, Store, Vote, now

FILES = Path(str(resources.files("kinema.evaluation.study")))
HEADERS = {
    # jsPsych sets style attributes; scripts, pictures and requests are this server's alone.
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
Order = Sequence[tuple[Trial, tuple[int, ...]]]
KEEP_ALIVE_SECONDS = 75  # a rater looks longer than the usual 5, and a proxy must not find the connection closed
LONGEST_ANSWER = 24 * 3600 * 1000  # milliseconds


class Answer(BaseModel):
    """An answer as the page sends it."""

    model_config = ConfigDict(extra="forbid")

    trial: Annotated[str, Field(max_length=64)]
    """Id of the trial."""
    ranking: Annotated[list[Annotated[int, Field(ge=0, le=RANKED[-1])]], Field(max_length=RANKED[-1])]
    """Places of the clips from left to right, from 0, best first."""
    milliseconds: Annotated[int, Field(ge=0, le=LONGEST_ANSWER)]
    """From the clips playing to the answer."""


def create_app(folder: Path, study: Study, store: Store) -> FastAPI:
    """Return the web application of a study.

    Args:
        folder: of the study.
        study: as it is in the folder.
        store: its answers.
    """
    app = FastAPI(title="kinema study", docs_url=None, redoc_url=None, openapi_url=None)
    page = _page()
    order_of = lru_cache(maxsize=1024)(partial(order_for, study))

    app.add_middleware(_AddHeaders)

    def known_rater(authorization: Annotated[str, Header()] = "") -> int:
        scheme, _, token = authorization.partition(" ")
        number = store.rater(token.strip()) if scheme.lower() == "bearer" else None
        if number is None:
            raise HTTPException(401, "this link is not known", {"WWW-Authenticate": "Bearer"})
        return number

    @app.get("/", response_class=HTMLResponse)
    def show_page() -> HTMLResponse:
        return HTMLResponse(page.render(study=study, closed=store.closed))

    @app.post("/api/raters", status_code=201)
    def add_rater() -> dict[str, str]:
        if store.closed:
            raise HTTPException(403, "this study is open only to people with a link")
        return {"token": store.add_rater(consented=True)[1]}

    @app.post("/api/consent", status_code=204)
    def consent(rater: Annotated[int, Depends(known_rater)]) -> None:
        store.consent(rater)

    @app.get("/api/session")
    def show_session(rater: Annotated[int, Depends(known_rater)]) -> dict[str, Any]:
        return session(study, order_of(rater), store.answered(rater), consented=store.has_consented(rater))

    @app.post("/api/votes", status_code=201)
    def add_vote(answer: Answer, rater: Annotated[int, Depends(known_rater)]) -> dict[str, bool]:
        if not store.has_consented(rater):
            raise HTTPException(403, "agree to take part first")
        try:
            store.add_vote(_vote(study, order_of(rater), rater, answer))
        except DuplicateVoteError as error:
            raise HTTPException(409, str(error)) from None
        return {"stored": True}

    files = {clip.file for clip in study.clips}

    @app.get("/clips/{name}")
    def show_clip(name: str, range_: Annotated[str, Header(alias="Range")] = "") -> Response:
        if name not in files:
            raise HTTPException(404, "no such clip")
        path, headers = folder / CLIPS_NAME / name, {"Cache-Control": "private, max-age=86400"}
        if range_:
            return FileResponse(path, media_type="video/mp4", headers=headers)
        # The page wants clips whole: one reading costs half of what a stream does.
        return Response(path.read_bytes(), media_type="video/mp4", headers={**headers, "Accept-Ranges": "bytes"})

    app.mount("/static", StaticFiles(directory=FILES / "static"))
    return app


class _AddHeaders:
    """Adds `HEADERS` to every reply. Plain ASGI: a function would cost a task and a queue per request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers)


def session(study: Study, order: Order, answered: set[str], *, consented: bool) -> dict[str, Any]:
    """Return what the page needs to know: nothing about systems, kinds of trials or anybody's answers.

    Args:
        study: whose trials.
        order: the rater's trials, as `order_for` gives them.
        answered: ids of the trials that the rater answered.
        consented: whether the rater agreed to take part.
    """
    return {
        "consented": consented,
        "total": len(order),
        "answered": len(answered),
        "trials": [
            {
                "id": trial.id,
                "practice": trial.kind == "practice",
                "clips": [f"clips/{study.clips[index].file}" for index in clips],
            }
            for trial, clips in order
            if trial.id not in answered
        ],
    }


def serve(folder: Path, study: Study, store: Store, listening: socket.socket) -> None:
    """Serve until Ctrl-C.

    Args:
        folder: of the study.
        study: as it is in the folder.
        store: its answers.
        listening: as `listen` made it.
    """
    config = uvicorn.Config(
        create_app(folder, study, store),
        log_level="warning",
        access_log=False,  # with the times of requests it would tell who answered what
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Args:
        host: address or name of this machine; 0.0.0.0 is all of its addresses.
        port: 0 takes a free one.

    Raises:
        EvaluationError: the address is not this machine's, or the port is taken or not allowed.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        reason = (error.strerror or str(error)).split(" (while")[0]
        raise EvaluationError(f"cannot listen on {host}:{port}: {reason}; choose another --port or --host") from None
    # For connections, which inherit it: asyncio does not set it on those of a socket that it did not make, and without it the
    # body of every reply waits for the acknowledgement of its head, 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _page() -> jinja2.Template:
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(FILES), autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("page.html.jinja")


def _vote(study: Study, order: Order, rater: int, answer: Answer) -> Vote:
    found = next((place for place, (trial, _) in enumerate(order) if trial.id == answer.trial), None)
    if found is None:
        raise HTTPException(404, "no such trial")
    files = tuple(study.clips[index].file for index in order[found][1])
    if sorted(answer.ranking) != list(range(len(files))):
        raise HTTPException(422, f"a ranking names each of the places 0 to {len(files) - 1} once")
    return Vote(rater, answer.trial, found, files, tuple(answer.ranking), answer.milliseconds, now())
