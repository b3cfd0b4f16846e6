"""The page in a real browser, as people use it."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
        if (found := shutil.which(name))
    ),
    os.environ.get("CHROMIUM"),
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

Images = Callable[..., bytes]
OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, live: str) -> Iterator[Any]:
    """The page, ready; it must not have failed, nor asked anybody else for anything."""
    context = browser.new_context()
    page = context.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: request.url.startswith((live, "blob:"))
            or troubles.append(request.url))  # fmt: skip
    open_page(page, live)
    yield page
    context.close()
    assert troubles == []


def open_page(page: Any, address: str) -> None:
    page.goto(address)
    page.wait_for_selector("body[data-ready]")


def file(content: bytes, name: str = "new.png", kind: str = "image/png") -> dict[str, Any]:
    return {"name": name, "mimeType": kind, "buffer": content}


def rows(page: Any, panel: str) -> list[str]:
    return page.locator(f"#{panel} li").all_inner_texts()


def choose(page: Any, *args: Any, **kwargs: Any) -> None:
    with page.expect_response("**/compare"):
        page.set_input_files("#file", file(*args, **kwargs))
    page.wait_for_selector("#answers[aria-busy=false]")


def set_strength(page: Any, value: str) -> None:
    page.locator("#strength").fill(value)


def test_upload_and_the_ends_of_the_slider(page: Any, make_image: Images) -> None:
    choose(page, make_image())
    frozen, adapted = rows(page, "frozen"), rows(page, "adapted")
    assert len(frozen) == len(adapted) == 3
    assert frozen != adapted
    set_strength(page, "0")
    assert rows(page, "between") == frozen
    set_strength(page, "1")
    assert rows(page, "between") == adapted
    set_strength(page, "0.5")
    assert rows(page, "between") not in (frozen, adapted)
    shown = page.locator("#frozen .share").all_inner_texts()
    assert sum(float(share.split()[0].strip("< ")) for share in shown) == pytest.approx(
        100, abs=0.3
    )
    assert page.locator("#preview").is_visible()
    assert "Frozen: " in page.locator("#status").inner_text()


def test_the_mix_is_the_geometric_mean(page: Any, live: str, make_image: Images) -> None:
    import torch
    from test_server import compare

    choose(page, make_image(5))
    set_strength(page, "0.25")
    answer = compare(live, make_image(5))[1]
    frozen, adapted = (
        torch.tensor(answer[key]).double().softmax(0) for key in ("frozen", "adapted")
    )
    mean = frozen**0.75 * adapted**0.25
    expected = sorted((mean / mean.sum()).tolist(), reverse=True)
    shown = page.locator("#between .share").all_inner_texts()
    assert shown == ["< 0.1 %" if x < 0.001 else f"{100 * x:.1f} %" for x in expected]


def test_names_are_edited(page: Any, make_image: Images) -> None:
    choose(page, make_image())
    page.fill("#names", "zebra, moose , hot dog")
    assert "3 names" in page.locator("#names-note").inner_text()
    with page.expect_response("**/compare"):
        page.click("#use")
    page.locator("#frozen", has_text="zebra").wait_for()
    names = {row.split("\n")[0] for row in rows(page, "adapted")}
    assert names == {"zebra", "moose", "hot dog"}
    page.fill("#names", "moose\nMoose")
    page.click("#use")
    problem = page.locator("#problem")
    problem.wait_for()
    assert "comes twice" in problem.inner_text()
    with page.expect_response("**/compare"):
        page.click("#trained")
    problem.wait_for(state="hidden")
    assert {row.split("\n")[0] for row in rows(page, "frozen")} == {"cat", "red panda", "bicycle"}


def test_markup_in_names_and_files_is_shown_as_text(page: Any, make_image: Images) -> None:
    script = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    page.fill("#names", f"{script}\ncat")
    choose(page, make_image(), name="<svg onload=alert(3)>.png")
    assert script in page.locator("#frozen").inner_text()
    assert page.locator("#file-name").inner_text() == "<svg onload=alert(3)>.png"
    assert page.locator(".answers img, .answers script, .answers svg").count() == 0


@pytest.mark.parametrize(
    ("name", "kind", "content", "reason"),
    [
        ("notes.txt", "text/plain", b"dear diary\n" * 9, "holds text"),
        ("photo.jpg", "image/jpeg", b"\xff\xd8\xff\xe0" + bytes(300), "can't be read"),
        ("movie.mp4", "video/mp4", bytes(2000), "can't be read"),
        ("empty.png", "image/png", b"", "empty"),
    ],
)
def test_wrong_files(
    page: Any, make_image: Images, name: str, kind: str, content: bytes, reason: str
) -> None:
    choose(page, make_image())
    choose(page, content, name, kind)
    problem = page.locator("#problem")
    problem.wait_for()
    assert reason in problem.inner_text()
    assert "appears here" in page.locator("#frozen").inner_text()  # not the image before
    assert page.locator("#flag").is_disabled()
    choose(page, make_image())
    problem.wait_for(state="hidden")
    assert len(rows(page, "adapted")) == 3


def test_a_file_that_is_too_large_is_not_even_sent(
    page: Any, live: str, make_image: Images
) -> None:
    def smaller(route: Any) -> None:
        answer = route.fetch()
        about = answer.json()
        about["limits"]["upload_bytes"] = 65536 + 100
        route.fulfill(response=answer, json=about)

    page.route("**/about", smaller)
    open_page(page, live)
    page.on("request", lambda request: pytest.fail("sent") if "compare" in request.url else None)
    page.set_input_files("#file", file(make_image(), "huge.png"))
    page.locator("#problem").wait_for()
    assert "too large" in page.locator("#problem").inner_text()


def test_drop_and_paste(page: Any, make_image: Images) -> None:
    give = """([bytes, kind]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], `${kind}.png`, { type: "image/png" }));
        const event = kind === "drop"
            ? new DragEvent("drop", { dataTransfer: data, bubbles: true })
            : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
        document.getElementById("drop").dispatchEvent(event);
    }"""
    for kind in ("drop", "paste"):
        with page.expect_response("**/compare"):
            page.evaluate(give, [list(make_image()), kind])
        page.wait_for_selector("#answers[aria-busy=false]")
        assert page.locator("#file-name").inner_text() == f"{kind}.png"
        assert len(rows(page, "frozen")) == 3


def opened_by_enter(page: Any) -> Any:
    """The file chooser; a busy machine's browser may lose the first key."""
    from playwright.sync_api import TimeoutError as Late

    for seconds in (5, 5, 20):
        page.bring_to_front()
        with contextlib.suppress(Late):
            with page.expect_file_chooser(timeout=1000 * seconds) as chooser:
                page.keyboard.press("Enter")
            return chooser.value
    pytest.fail("Enter opens no file chooser")


def test_everything_by_keyboard(page: Any, make_image: Images, run_folder: Path) -> None:
    def focused() -> str:
        return page.evaluate("document.activeElement.id")

    flags = run_folder / "flags.csv"
    flags.unlink(missing_ok=True)
    page.bring_to_front()  # a window in the background gets the key, and opens nothing
    page.wait_for_load_state("networkidle")
    page.keyboard.press("Tab")
    assert focused() == "file"
    chooser = opened_by_enter(page)
    with page.expect_response("**/compare"):
        chooser.set_files(file(make_image(), "=evil.png"))
    page.keyboard.press("Tab")
    assert focused() == "names"
    page.keyboard.press("Control+a")
    page.keyboard.type("zebra, moose")
    with page.expect_response("**/compare"):
        page.keyboard.press("Control+Enter")
    page.locator("#frozen", has_text="zebra").wait_for()
    for expected in ("use", "trained", "strength"):
        page.keyboard.press("Tab")
        assert focused() == expected
    page.keyboard.press("End")
    assert page.locator("#strength-value").inner_text() == "λ = 1.00"
    assert rows(page, "between") == rows(page, "adapted")
    page.keyboard.press("Home")
    assert rows(page, "between") == rows(page, "frozen")
    page.keyboard.press("ArrowRight")
    assert page.locator("#strength-value").inner_text() == "λ = 0.05"
    page.keyboard.press("Tab")  # what λ does
    page.keyboard.press("Enter")
    assert page.get_by_text("geometric mean").is_visible()
    page.keyboard.press("Tab")
    assert focused() == "right"
    page.keyboard.type("moose")
    page.keyboard.press("Tab")
    assert focused() == "flag"
    with page.expect_response("**/flag"):
        page.keyboard.press("Enter")
    page.locator("#flag-note", has_text="1 flag").wait_for()
    with flags.open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["image"] == "'=evil.png"
    assert row["right"] == "moose"
    assert row["lambda"] == "0.05"
    assert {row["frozen"], row["adapted"]} <= {"zebra", "moose"}


def test_every_control_has_a_name_and_a_visible_focus(page: Any) -> None:
    controls = page.locator("input, textarea, button, summary")
    for index in range(controls.count()):
        control = controls.nth(index)
        name = control.evaluate(
            "e => e.getAttribute('aria-label') || e.innerText"
            " || [...(e.labels || [])].map(l => l.innerText).join('')"
        )
        assert name.strip(), control.evaluate("e => e.outerHTML")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_fits_and_can_be_read(
    browser: Any, live: str, make_image: Images, scheme: str, width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    open_page(page, live)
    page.fill("#names", "an-uncommonly-long-name-without-any-place-to-break-it" * 3 + "\ncat")
    choose(page, make_image(), name="x" * 150 + ".png")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    contrast = """() => {
        const light = (c) => {
            const [r, g, b] = c.match(/[\\d.]+/g).map((v) => v / 255)
                .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const ground = (e) => {
            const c = getComputedStyle(e).backgroundColor;
            return c !== "rgba(0, 0, 0, 0)" || !e.parentElement ? c : ground(e.parentElement);
        };
        const kinds = "h1, h2, p, span, button:enabled, textarea, output, summary";
        return [...document.querySelectorAll(kinds)]
            .filter((e) => e.checkVisibility() && e.innerText?.trim())
            .map((e) => {
                const both = [light(getComputedStyle(e).color), light(ground(e))];
                const [a, b] = both.sort((x, y) => y - x);
                return [(a + 0.05) / (b + 0.05), e.outerHTML.slice(0, 80)];
            }).sort((x, y) => x[0] - y[0])[0];
    }"""
    lowest = page.evaluate(contrast)
    assert lowest[0] >= 4.5, lowest  # WCAG 2.1 AA
    context.close()


@pytest.mark.slow
def test_twenty_people_at_once(browser: Any, live: str, make_image: Images) -> None:
    from test_server import compare

    contexts = [browser.new_context() for _ in range(20)]
    pages = [context.new_page() for context in contexts]
    for page in pages:
        open_page(page, live)
    for number, page in enumerate(pages):  # nobody waits for an answer here
        page.set_input_files("#file", file(make_image(number)))
    for number, page in enumerate(pages):
        page.wait_for_selector("#adapted .bar")
        answer = compare(live, make_image(number))[1]
        best = answer["class_names"][max(range(3), key=answer["adapted"].__getitem__)]
        assert rows(page, "adapted")[0].startswith(best)
    for context in contexts:
        context.close()
