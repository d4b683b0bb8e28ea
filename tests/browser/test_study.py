"""A rater's session in headless Chromium: by keyboard, with a reload in the middle; two raters at once; a phone."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install 'kinema[dev]'")
pytest.importorskip("fastapi", reason="FastAPI is not installed: pip install 'kinema[study]'")

import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from kinema.evaluation.study.design import Study
from kinema.evaluation.study.server import create_app, listen
from kinema.evaluation.study.store import Store
from unit.evaluation.small_study import written

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("there is no chromium on the PATH")
    with sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return written(tmp_path)


@pytest.fixture
def address(tmp_path: Path, study: Study) -> Iterator[str]:
    store = Store(tmp_path, study, create=True)
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(tmp_path, study, store), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join()
    listening.close()
    store.close()


def begin(browser: Browser, address: str, asked: list[str] | None = None, **context: object) -> Page:
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(60_000)
    if asked is not None:
        page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.get_by_role("button", name="I agree, begin").click()
    page.get_by_role("button", name="Start").click()
    return page


def wait_for_trial(page: Page, answered: int) -> None:
    page.wait_for_function(
        "n => document.querySelector('#progress progress')?.value === n && document.querySelector('.pair:not(.loading)')",
        arg=answered,
    )


def test_a_session_by_keyboard_with_a_reload(browser: Browser, address: str, study: Study, tmp_path: Path) -> None:
    asked: list[str] = []
    page = begin(browser, address, asked)
    keys = ["ArrowLeft", "ArrowRight", "f", "j"]
    for number in range(len(study.trials)):
        if number == 3:
            page.reload()
            page.get_by_role("button", name="Start").click()
        wait_for_trial(page, number)
        page.keyboard.press(keys[number % 4])
    page.get_by_role("heading", name="Thank you").wait_for()
    votes = Store(tmp_path, study).votes()
    assert [vote.side for vote in votes] == [("left", "right")[number % 2] for number in range(len(study.trials))]
    assert [vote.position for vote in votes] == list(range(len(study.trials)))
    page.reload()
    page.get_by_role("heading", name="Thank you").wait_for()
    assert all(url.startswith((address, "blob:", "data:")) for url in asked)
    assert len(asked) > 2 * len(study.trials)


def test_both_clips_play_and_stay_together(browser: Browser, address: str) -> None:
    page = begin(browser, address)
    wait_for_trial(page, 0)
    page.wait_for_timeout(1500)  # half a second of clip: it has come round
    times = page.evaluate("[...document.querySelectorAll('video')].map(v => [v.currentTime, v.duration, v.error])")
    assert all(error is None for _, _, error in times)
    assert abs(times[0][0] - times[1][0]) < 0.3  # of a clip of half a second; without waiting they drift apart for good
    assert times[0][1] == times[1][1] == pytest.approx(0.5, abs=0.05)


def test_two_raters_at_once(browser: Browser, address: str, study: Study, tmp_path: Path) -> None:
    pages = [begin(browser, address), begin(browser, address)]
    for number in range(len(study.trials)):
        for page, side in zip(pages, ("left", "right"), strict=True):
            wait_for_trial(page, number)
            page.get_by_role("button", name=f"Choose the {side} video").click()
    for page in pages:
        page.get_by_role("heading", name="Thank you").wait_for()
    votes = Store(tmp_path, study).votes()
    assert {(vote.rater, vote.side) for vote in votes} == {(1, "left"), (2, "right")}
    assert len(votes) == 2 * len(study.trials)


def test_a_phone(browser: Browser, address: str, study: Study, tmp_path: Path) -> None:
    page = begin(browser, address, viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    wait_for_trial(page, 0)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for side in ("left", "right"):
        box = page.get_by_role("button", name=f"Choose the {side} video").bounding_box()
        assert box["width"] > 150
        assert box["y"] + box["height"] < 640
    page.get_by_role("button", name="Choose the right video").tap()
    wait_for_trial(page, 1)
    assert [vote.side for vote in Store(tmp_path, study).votes()] == ["right"]


def test_a_lost_connection_loses_no_answer(browser: Browser, address: str, study: Study, tmp_path: Path) -> None:
    page = begin(browser, address)
    wait_for_trial(page, 0)
    page.context.set_offline(True)
    page.keyboard.press("f")
    page.get_by_text("No connection; trying again").wait_for()
    page.context.set_offline(False)
    wait_for_trial(page, 1)
    assert len(Store(tmp_path, study).votes()) == 1


def test_an_unknown_link_and_a_closed_study(browser: Browser, address: str, study: Study, tmp_path: Path) -> None:
    page = browser.new_context().new_page()
    page.goto(f"{address}#nobody")
    page.get_by_role("heading", name="This link is not known").wait_for()
    store = Store(tmp_path, study)
    store.closed = True
    page = browser.new_context().new_page()
    page.goto(address)
    page.get_by_role("heading", name="invited people").wait_for()
    page.goto(f"{address}#{store.add_rater(consented=False)[1]}")
    page.get_by_role("button", name="I agree, begin").click()
    page.get_by_role("button", name="Start").click()
    wait_for_trial(page, 0)
