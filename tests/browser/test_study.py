"""A rater's session in headless Chromium: pairs and rankings; by keyboard, with a reload; two raters at once; a phone; iOS."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("fastapi", reason="FastAPI is not installed: pip install 'kinema[study]'")

import uvicorn

from kinema.evaluation.study.design import Plan, order_for
from kinema.evaluation.study.folder import Study
from kinema.evaluation.study.server import create_app, listen
from kinema.evaluation.study.store import Store
from unit.evaluation.small_study import written

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
LEFT, RIGHT = (0, 1), (1, 0)
TOUCH_FIRST = """
const play = HTMLMediaElement.prototype.play;
const touched = new WeakSet();
let touching = false;
document.addEventListener("click", (event) => {
  touching = event.isTrusted;
  setTimeout(() => { touching = false; });
}, true);
HTMLMediaElement.prototype.play = function () {
  if (touching) touched.add(this);
  if (touched.has(this)) return play.call(this);
  return Promise.reject(new DOMException("not allowed", "NotAllowedError"));
};
document.addEventListener("canplaythrough", (event) => event.stopImmediatePropagation(), true);
"""
"""What iOS does in low power mode: a video element plays only after a touch, and loads no more than its head before."""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'kinema[dev]'")
    if not CHROMIUM:
        pytest.skip("there is no chromium on the PATH")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return written(tmp_path)


@pytest.fixture
def address(tmp_path: Path, study: Study) -> Iterator[str]:
    with served(tmp_path, study) as found:
        yield found


@pytest.fixture
def ranking(tmp_path: Path) -> Study:
    plan = Plan(kind="ranking", trials=2, noise=1, repeats=1, still=1, practice=1)
    return written(tmp_path, plan, ("one", "two", "three", "real"))


@contextmanager
def served(tmp_path: Path, study: Study) -> Iterator[str]:
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


def begin(browser: "Browser", address: str, asked: list[str] | None = None, **context: object) -> "Page":
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(60_000)
    if asked is not None:
        page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.get_by_role("button", name="I agree, begin").click()
    page.get_by_role("button", name="Start").click()
    return page


def wait_for_trial(page: "Page", answered: int) -> None:
    page.wait_for_function(
        "n => document.querySelector('#progress progress')?.value === n && document.querySelector('.clips:not(.loading)')",
        arg=answered,
    )


def test_a_session_by_keyboard_with_a_reload(browser: "Browser", address: str, study: Study, tmp_path: Path) -> None:
    asked: list[str] = []
    page = begin(browser, address, asked)
    keys = ["ArrowLeft", "ArrowRight", "f", "j"]
    trials = len(order_for(study, 1))
    for number in range(trials):
        if number == 3:
            page.reload()
            page.get_by_role("button", name="Start").click()
        wait_for_trial(page, number)
        page.keyboard.press(keys[number % 4])
    page.get_by_role("heading", name="Thank you").wait_for()
    votes = Store(tmp_path, study).votes()
    assert [vote.ranking for vote in votes] == [(LEFT, RIGHT)[number % 2] for number in range(trials)]
    assert [vote.position for vote in votes] == list(range(trials))
    page.reload()
    page.get_by_role("heading", name="Thank you").wait_for()
    assert all(url.startswith((address, "blob:", "data:")) for url in asked)
    assert len(asked) > 2 * trials


def test_both_clips_play_and_stay_together(browser: "Browser", address: str) -> None:
    page = begin(browser, address)
    wait_for_trial(page, 0)
    page.wait_for_timeout(1500)  # half a second of clip: it has come round
    times = page.evaluate("[...document.querySelectorAll('video')].map(v => [v.currentTime, v.duration, v.error])")
    assert all(error is None for _, _, error in times)
    assert abs(times[0][0] - times[1][0]) < 0.3  # of a clip of half a second; without waiting they drift apart for good
    assert times[0][1] == times[1][1] == pytest.approx(0.5, abs=0.05)


def test_two_raters_at_once(browser: "Browser", address: str, study: Study, tmp_path: Path) -> None:
    pages = [begin(browser, address), begin(browser, address)]
    trials = len(order_for(study, 1))
    for number in range(trials):
        for page, side in zip(pages, ("left", "right"), strict=True):
            wait_for_trial(page, number)
            page.get_by_role("button", name=f"Choose the {side} video").click()
    for page in pages:
        page.get_by_role("heading", name="Thank you").wait_for()
    votes = Store(tmp_path, study).votes()
    assert {(vote.rater, vote.ranking) for vote in votes} == {(1, LEFT), (2, RIGHT)}
    assert len(votes) == 2 * trials


def test_a_phone(browser: "Browser", address: str, study: Study, tmp_path: Path) -> None:
    page = begin(browser, address, viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    wait_for_trial(page, 0)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for side in ("left", "right"):
        box = page.get_by_role("button", name=f"Choose the {side} video").bounding_box()
        assert box["width"] > 150
        assert box["y"] + box["height"] < 640
    page.get_by_role("button", name="Choose the right video").tap()
    wait_for_trial(page, 1)
    assert [vote.ranking for vote in Store(tmp_path, study).votes()] == [RIGHT]


def test_a_lost_connection_loses_no_answer(browser: "Browser", address: str, study: Study, tmp_path: Path) -> None:
    page = begin(browser, address)
    wait_for_trial(page, 0)
    page.context.set_offline(True)
    page.keyboard.press("f")
    page.get_by_text("No connection; trying again").wait_for()
    page.context.set_offline(False)
    wait_for_trial(page, 1)
    assert len(Store(tmp_path, study).votes()) == 1


def test_an_unknown_link_and_a_closed_study(browser: "Browser", address: str, study: Study, tmp_path: Path) -> None:
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


def test_a_ranking_by_keyboard(browser: "Browser", ranking: Study, tmp_path: Path) -> None:
    with served(tmp_path, ranking) as address:
        page = begin(browser, address)
        done = page.get_by_role("button", name="Confirm")
        trials = [clips for _, clips in order_for(ranking, 1)]
        for number, clips in enumerate(trials):
            wait_for_trial(page, number)
            letters = "dbac" if len(clips) == 4 else "ba"
            page.keyboard.press("Enter")  # too early: nothing happens
            for letter in letters:
                assert done.is_disabled()
                page.keyboard.press(letter)
            assert done.is_enabled()
            page.keyboard.press("Backspace")
            assert done.is_disabled()
            page.keyboard.press(letters[-1].upper())
            page.keyboard.press("Enter")
        page.get_by_role("heading", name="Thank you").wait_for()
    votes = Store(tmp_path, ranking).votes()
    assert [vote.ranking for vote in votes] == [(3, 1, 0, 2) if len(clips) == 4 else RIGHT for clips in trials]
    assert RIGHT in [vote.ranking for vote in votes]
    for vote, clips in zip(votes, trials, strict=True):
        assert vote.clips == tuple(ranking.clips[index].file for index in clips)


def test_a_ranking_by_mouse_can_be_changed_before_it_is_confirmed(browser: "Browser", ranking: Study, tmp_path: Path) -> None:
    with served(tmp_path, ranking) as address:
        page = begin(browser, address)
        wait_for_trial(page, 0)
        for letter in "ABCD":
            page.get_by_role("button", name=f"Video {letter}").click()
        page.get_by_role("button", name="Video B, number 2").click()  # takes it back: C and D move up
        assert page.get_by_role("button", name="Video D, number 3").get_attribute("aria-pressed") == "true"
        assert page.get_by_role("button", name="Confirm").is_disabled()
        assert page.get_by_text("Now number 4.").is_visible()
        page.reload()  # nothing was answered
        page.get_by_role("button", name="Start").click()
        wait_for_trial(page, 0)
        for letter in "ACDB":
            page.get_by_role("button", name=f"Video {letter}").click()
        page.get_by_role("button", name="Confirm").click()
        wait_for_trial(page, 1)
    assert [vote.ranking for vote in Store(tmp_path, ranking).votes()] == [(0, 2, 3, 1)]


def test_a_ranking_on_a_phone(browser: "Browser", ranking: Study, tmp_path: Path) -> None:
    with served(tmp_path, ranking) as address:
        page = begin(browser, address, viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
        wait_for_trial(page, 0)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        for letter in "CABD":
            button = page.get_by_role("button", name=f"Video {letter}")
            assert button.bounding_box()["width"] > 150
            button.tap()
        box = page.get_by_role("button", name="Confirm").bounding_box()
        assert box["y"] + box["height"] < 640
        assert box["height"] >= 44
        page.get_by_role("button", name="Confirm").tap()
        wait_for_trial(page, 1)
    assert [vote.ranking for vote in Store(tmp_path, ranking).votes()] == [(2, 0, 1, 3)]


def test_a_browser_that_lets_nothing_play_by_itself_asks_once_for_a_touch(
    browser: "Browser", address: str, study: Study, tmp_path: Path
) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.add_init_script(TOUCH_FIRST)
    page.goto(address)
    page.get_by_role("button", name="I agree, begin").click()
    page.get_by_role("button", name="Start").click()
    play = page.get_by_role("button", name="Play the videos")
    play.wait_for()
    page.keyboard.press("ArrowLeft")  # nobody has seen anything yet
    assert Store(tmp_path, study).votes() == []
    play.tap()
    for number in range(len(order_for(study, 1))):
        wait_for_trial(page, number)
        assert play.is_hidden()
        page.wait_for_function("[...document.querySelectorAll('video')].every((video) => video.currentTime > 0)")
        page.get_by_role("button", name="Choose the right video").tap()
    page.get_by_role("heading", name="Thank you").wait_for()
    assert {vote.ranking for vote in Store(tmp_path, study).votes()} == {RIGHT}
