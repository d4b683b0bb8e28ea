"""What a rater can ask for over HTTP, and that an acknowledged answer survives SIGKILL."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="FastAPI is not installed: pip install 'kinema[study]'")
pytest.importorskip("httpx2", reason="httpx2 is not installed: pip install 'kinema[dev]'")

from fastapi.testclient import TestClient

from kinema.core.errors import EvaluationError
from kinema.evaluation.study.design import Plan
from kinema.evaluation.study.folder import Study
from kinema.evaluation.study.server import FILES, create_app, listen
from kinema.evaluation.study.store import Store
from unit.evaluation.small_study import written

ROOT = Path(__file__).parents[3]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return written(tmp_path)


@pytest.fixture
def store(tmp_path: Path, study: Study) -> Iterator[Store]:
    store = Store(tmp_path, study, create=True)
    yield store
    store.close()


@pytest.fixture
def client(tmp_path: Path, study: Study, store: Store) -> Iterator[TestClient]:
    with TestClient(create_app(tmp_path, study, store)) as client:
        yield client


def join(client: TestClient) -> dict[str, str]:
    return {"Authorization": f"Bearer {client.post('api/raters').json()['token']}"}


LEFT, RIGHT = (0, 1), (1, 0)


def answer(trial: str, ranking: tuple[int, ...] = LEFT) -> dict[str, object]:
    return {"trial": trial, "ranking": ranking, "milliseconds": 1200}


def test_a_session_ends_when_every_trial_is_answered_once(client: TestClient, store: Store, study: Study) -> None:
    rater = join(client)
    trials = client.get("api/session", headers=rater).json()["trials"]
    assert len(trials) == 1 + 4 + 1 + 1  # practice, comparisons, noise and a repetition
    for trial in trials:
        assert client.post("api/votes", headers=rater, json=answer(trial["id"])).status_code == 201
    left = client.get("api/session", headers=rater).json()
    assert (left["trials"], left["answered"], left["total"]) == ([], len(trials), len(trials))
    for trial, vote in zip(trials, store.votes(), strict=True):
        assert trial["clips"] == [f"clips/{name}" for name in vote.clips] == [f"clips/{name}" for name in vote.ranked]


def test_a_second_vote_is_refused_and_the_first_stays(client: TestClient, store: Store, study: Study) -> None:
    rater = join(client)
    assert client.post("api/votes", headers=rater, json=answer(study.trials[0].id)).status_code == 201
    again = client.post("api/votes", headers=rater, json=answer(study.trials[0].id, RIGHT))
    assert again.status_code == 409
    assert [vote.ranking for vote in store.votes()] == [LEFT]


def test_nobody_reads_or_writes_in_another_s_name(client: TestClient, study: Study) -> None:
    one, two = join(client), join(client)
    client.post("api/votes", headers=one, json=answer(study.trials[0].id))
    assert client.get("api/session", headers=two).json()["answered"] == 0
    assert client.post("api/votes", headers=two, json=answer(study.trials[0].id, RIGHT)).status_code == 201
    for wrong in ({}, {"Authorization": "Bearer 1"}, {"Authorization": one["Authorization"].replace("Bearer ", "Basic ")}):
        assert client.get("api/session", headers=wrong).status_code == 401
        assert client.post("api/votes", headers=wrong, json=answer(study.trials[1].id)).status_code == 401
    assert client.get("answers.sqlite").status_code == client.get("study.json").status_code == 404
    assert client.get("clips/..%2Fanswers.sqlite").status_code == client.get("static/..%2Fserver.py").status_code == 404
    assert client.get("openapi.json").status_code == 404


def test_the_rater_is_told_nothing_about_systems(client: TestClient, study: Study) -> None:
    trials = client.get("api/session", headers=join(client)).json()["trials"]
    assert {key for trial in trials for key in trial} == {"id", "practice", "clips"}
    assert not re.search(r"\b(one|two|noise|repeat)\b", json.dumps(trials))
    heads = [dict(client.get(name).headers) for name in trials[0]["clips"]]
    for head in heads:
        head.pop("content-length")
    assert heads[0] == heads[1]
    assert "last-modified" not in heads[0]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"trial": "nothing", "ranking": [0, 1], "milliseconds": 5}, 404),
        ({"trial": "x", "ranking": "left", "milliseconds": 5}, 422),
        ({"trial": "x", "ranking": [0, -1], "milliseconds": 5}, 422),
        ({"trial": "x", "ranking": [0, 1], "milliseconds": -1}, 422),
        ({"trial": "x", "ranking": [0, 1]}, 422),
        ({"trial": "x", "ranking": [0, 1], "milliseconds": 5, "rater": 2}, 422),
    ],
)
def test_what_is_no_answer_is_refused(client: TestClient, store: Store, body: dict, status: int) -> None:
    assert client.post("api/votes", headers=join(client), json=body).status_code == status
    assert store.votes() == []


def test_an_incomplete_or_impossible_ranking_is_refused(tmp_path: Path) -> None:
    study = written(tmp_path, Plan(kind="ranking", trials=2, noise=1, repeats=1), ("one", "two", "real"))
    store = Store(tmp_path, study, create=True)
    with TestClient(create_app(tmp_path, study, store)) as client:
        rater = join(client)
        trial = client.get("api/session", headers=rater).json()["trials"][0]
        assert len(trial["clips"]) == 3
        for ranking in ((), (0,), (0, 1), (0, 1, 1), (0, 1, 2, 3), (1, 2, 3), (0, 1, 7)):
            refused = client.post("api/votes", headers=rater, json=answer(trial["id"], ranking))
            assert refused.status_code == 422
            assert "a ranking names each of the places 0 to 2 once" in refused.text
        for absurd in ((0, 1, 99), tuple(range(9)), (0, 1, -1)):
            assert client.post("api/votes", headers=rater, json=answer(trial["id"], absurd)).status_code == 422
        assert client.post("api/votes", headers=rater, json=answer(trial["id"], (2, 0, 1))).status_code == 201
        assert client.post("api/votes", headers=rater, json=answer(trial["id"], (0, 1, 2))).status_code == 409
    assert [vote.ranking for vote in store.votes()] == [(2, 0, 1)]
    store.close()


def test_raters_of_a_pool_may_answer_only_their_own_trials(tmp_path: Path) -> None:
    study = written(tmp_path, Plan(trials=2, pool=6, noise=0, repeats=0, practice=0))
    store = Store(tmp_path, study, create=True)
    with TestClient(create_app(tmp_path, study, store)) as client:
        one, two = join(client), join(client)
        given = [{trial["id"] for trial in client.get("api/session", headers=r).json()["trials"]} for r in (one, two)]
        assert [len(given[0]), len(given[1]), len(given[0] & given[1])] == [2, 2, 0]
        assert client.post("api/votes", headers=one, json=answer(given[1].pop())).status_code == 404
    store.close()


def test_a_closed_study_lets_in_invited_people_who_are_asked_first(client: TestClient, store: Store, study: Study) -> None:
    store.closed = True
    _, token = store.add_rater(consented=False)
    assert client.post("api/raters").status_code == 403
    assert 'data-closed="yes"' in client.get("/").text
    rater = {"Authorization": f"Bearer {token}"}
    assert client.get("api/session", headers=rater).json()["consented"] is False
    assert client.post("api/votes", headers=rater, json=answer(study.trials[0].id)).status_code == 403
    assert client.post("api/consent", headers=rater).status_code == 204
    assert client.post("api/votes", headers=rater, json=answer(study.trials[0].id)).status_code == 201


def test_clips_are_served_whole_and_in_parts(client: TestClient, study: Study, tmp_path: Path) -> None:
    name = study.clips[0].file
    whole = client.get(f"clips/{name}")
    assert whole.content == (tmp_path / "clips" / name).read_bytes()
    assert whole.headers["content-type"] == "video/mp4"
    part = client.get(f"clips/{name}", headers={"Range": "bytes=4-7"})  # Safari plays nothing without
    assert (part.status_code, part.content) == (206, b"ftyp")


def test_the_page_asks_no_outside_host(client: TestClient) -> None:
    page = client.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert sorted(named) == ["data:,", "static/jspsych-8.3.0.min.js", "static/study.css", "static/study.js"]
    for name in named[1:]:
        assert client.get(name).status_code == 200
    for own in ("study.js", "study.css"):
        assert "//" not in re.sub(r"(?m)//\s.*$|// -.*$", "", (FILES / "static" / own).read_text())
    assert "sourceMappingURL" not in (FILES / "static" / "jspsych-8.3.0.min.js").read_text()
    assert "MIT" in (FILES / "static" / "jspsych-LICENSE.txt").read_text()


def test_text_of_the_study_is_shown_as_text(tmp_path: Path) -> None:
    from dataclasses import replace

    study = replace(written(tmp_path), question="<script>alert(1)</script>")
    page = TestClient(create_app(tmp_path, study, Store(tmp_path, study, create=True))).get("/").text
    assert "<script>alert" not in page


def test_a_port_in_use_is_one_sentence() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(EvaluationError, match="--port"):
        listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(EvaluationError, match="cannot listen on"):
        listen("no-such-host.invalid", 0)


def test_replies_wait_for_no_acknowledgement() -> None:
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def ask(address: str, token: str, body: dict | None = None) -> dict:
    request = urllib.request.Request(address, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"})
    request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def test_an_acknowledged_ranking_survives_a_killed_server(tmp_path: Path) -> None:
    study = written(tmp_path, Plan(kind="ranking", trials=2, repeats=1, practice=0), ("one", "two", "real"))
    command = [sys.executable, "-m", "kinema", "study", "serve", str(tmp_path), "--port", "0", "--invite", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        found = re.search(r"(http://\S+/)#(\S+)", server.stdout.readline())
        assert found
        server.stdout.readline()
        address, token = found.groups()
        urllib.request.urlopen(
            urllib.request.Request(f"{address}api/consent", b"", {"Authorization": f"Bearer {token}"})
        ).close()
        assert ask(f"{address}api/votes", token, answer(study.trials[0].id, (2, 0, 1))) == {"stored": True}
        server.send_signal(signal.SIGKILL)
        server.wait()
    votes = Store(tmp_path, study).votes()
    assert [(vote.trial, vote.ranking) for vote in votes] == [(study.trials[0].id, (2, 0, 1))]
