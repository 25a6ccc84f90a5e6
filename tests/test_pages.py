"""The built pages in a browser: two widths, two colour schemes, no request leaves.

Links and anchors are checked on the files, so that they are without a browser too.
"""

import re
from functools import cache
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from bs4 import BeautifulSoup
from conftest import need

from tools.browser import (
    SCHEMES,
    TYPESET,
    WIDTHS,
    context,
    executable,
    launch,
    serve,
)
from tools.chapters import documents

PAGES = [*documents(), "search", "genindex"]
LOOK = r"""
() => {
  const wrong = [];
  const shown = (e) => e.checkVisibility({visibilityProperty: true});
  const short = (e) => e.outerHTML.slice(0, 120);
  const page = document.scrollingElement;
  if (page.scrollWidth > page.clientWidth) {
    wrong.push(`the page scrolls sideways: ${page.scrollWidth} > ${page.clientWidth}`);
    for (const e of document.querySelectorAll(".bd-article *")) {
      const box = e.getBoundingClientRect();
      if (box.right > page.clientWidth + 1 && shown(e)) {
        wrong.push(`  up to ${Math.round(box.right)}: ${short(e)}`);
        if (wrong.length > 6) break;
      }
    }
  }
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const skipped = "script, style, noscript, pre, code, textarea, mjx-container";
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const bad = text.data.match(/\\\(|\\\[|\$\$|\\frac/);
    if (bad && !text.parentElement.closest(skipped) && shown(text.parentElement))
      wrong.push(`visible ${bad[0]} in: ${text.data.trim().slice(0, 120)}`);
  }
  for (const e of document.querySelectorAll("mjx-merror, [data-mjx-error]"))
    wrong.push(`MathJax: ${e.getAttribute("data-mjx-error") || e.textContent}`);
  for (const claim of document.querySelectorAll("section.claim")) {
    const text = claim.textContent;
    if (/\\\(|\\\[/.test(text)) wrong.push(`card not typeset: ${claim.id}`);
  }
  for (const image of document.querySelectorAll("img")) {
    if (!image.alt.trim()) wrong.push(`no alt text: ${image.src}`);
    if (image.complete && !image.naturalWidth && shown(image))
      wrong.push(`broken image: ${image.src}`);
  }
  for (const table of document.querySelectorAll("table")) {
    if (window.innerWidth < 1000 || !shown(table)) continue;
    for (let e = table; e && e !== document.body; e = e.parentElement) {
      const scrolls = ["auto", "scroll", "hidden"];
      if (!scrolls.includes(getComputedStyle(e).overflowX)) continue;
      if (e.scrollWidth > e.clientWidth + 1)
        wrong.push(`a table hides columns: ${e.scrollWidth} > ${e.clientWidth} `
          + table.textContent.trim().slice(0, 60));
      break;
    }
  }
  return wrong;
}
"""


@pytest.fixture(scope="session")
def browser():
    need(executable(), "a Chromium")
    with launch() as running:
        yield running


@pytest.fixture(scope="session")
def address(html):
    with serve(html) as where:
        yield where


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_page(browser, address, name, width, scheme):
    wrong = []

    def gate(route):
        if urlsplit(route.request.url).hostname == "127.0.0.1":
            route.continue_()
        else:
            wrong.append(f"off-site request: {route.request.url}")
            route.abort()

    with context(browser, width, scheme) as window:
        window.route(re.compile("^https?:"), gate)
        page = window.new_page()
        page.on(
            "console",
            lambda m: wrong.append(f"console: {m.text}") if m.type == "error" else None,
        )
        page.on("pageerror", lambda e: wrong.append(f"page error: {e}"))
        page.on(
            "response",
            lambda r: wrong.append(f"{r.status}: {r.url}") if r.status >= 400 else None,
        )
        page.on(
            "requestfailed", lambda r: wrong.append(f"failed: {r.url} ({r.failure})")
        )
        page.goto(f"{address}/{name}.html", wait_until="load")
        assert page.evaluate(TYPESET), "MathJax did not start"
        theme = page.evaluate("() => document.documentElement.dataset.theme")
        assert theme == scheme
        wrong += page.evaluate(LOOK)
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)


def test_sliders_change_their_figures(browser, address, html):
    """Each slider shows another picture at its end, with the keyboard alone."""
    sliders = 0
    with context(browser, 390, "light") as window:
        page = window.new_page()
        for name in documents():
            expected = len(parsed(html / f"{name}.html").select("figure.slider"))
            if not expected:
                continue
            page.goto(f"{address}/{name}.html", wait_until="load")
            figures = page.locator("figure.slider").all()
            assert len(figures) == expected
            for figure in figures:
                picture, bar = figure.locator("img"), figure.locator("input")
                before = (
                    picture.get_attribute("src"),
                    bar.get_attribute("aria-valuetext"),
                )
                bar.press("End")
                after = (
                    picture.get_attribute("src"),
                    bar.get_attribute("aria-valuetext"),
                )
                assert before[0] != after[0] and before[1] != after[1]
                assert figure.locator("output").text_content() == after[1]
                size = picture.evaluate("e => [e.naturalWidth, e.clientWidth]")
                assert min(size) > 100, f"{name}: a frame is {size} pixels wide"
                sliders += 1
    assert sliders


def test_claim_cards_are_typeset(browser, address, html):
    """A card whose source has TeX shows formulas, and none is left as source."""
    cards = 0
    with context(browser, 1400, "light") as window:
        page = window.new_page()
        for name in documents():
            expected = {
                card["id"]: "\\(" in card.get_text()
                for card in parsed(html / f"{name}.html").select("section.claim[id]")
            }
            if not expected:
                continue
            page.goto(f"{address}/{name}.html", wait_until="load")
            page.evaluate(TYPESET)
            for anchor, has_tex in expected.items():
                card = page.locator(f"[id='{anchor}']")
                assert bool(card.locator("mjx-container").count()) >= has_tex, anchor
                cards += 1
    assert cards


@cache
def parsed(path):
    return BeautifulSoup(path.read_text("utf-8"), "html.parser")


@cache
def anchors(path):
    return {
        tag[key]
        for tag in parsed(path).find_all(True)
        for key in ("id", "name")
        if tag.has_attr(key)
    }


def test_links(html):
    """Every internal link has a file, and every anchor a place in it."""
    broken = []
    for name in PAGES:
        page = html / f"{name}.html"
        for tag in parsed(page).find_all(["a", "img", "link", "script"]):
            target = tag.get("href") or tag.get("src") or ""
            if urlsplit(target).scheme or target.startswith("//"):
                continue
            path, fragment = urldefrag(unquote(target))
            path = urlsplit(path).path
            file = (page.parent / path).resolve() if path else page
            if not file.is_file():
                broken.append(f"{name}: {target} (no such file)")
            elif fragment and file.suffix == ".html" and fragment not in anchors(file):
                broken.append(f"{name}: {target} (no such anchor)")
    assert not broken, "\n".join(sorted(set(broken)))


# sphinx-exercise gives these to every exercise and solution; nothing links to them.
REPEATED = {"exercise-content", "solution-content"}


def test_ids_are_unique(html):
    for name in documents():
        ids = [tag["id"] for tag in parsed(html / f"{name}.html").find_all(id=True)]
        twice = sorted({i for i in ids if ids.count(i) > 1} - REPEATED)
        assert not twice, f"{name}: {twice}"


def test_ledger_shows_every_row(html):
    from sgdbook import registry

    page = parsed(html / "book/reference/ledger.html")
    shown = [row["id"] for row in page.select("article.ledger-row")]
    expected = [
        f"row-{registry.anchor(i).removeprefix('claim-')}" for i in registry.rows()
    ]
    assert sorted(shown) == sorted(expected)
    for row in page.select("article.ledger-row"):
        assert row.select_one(".claim-source").get_text(strip=True)
        assert row.select_one(".claim-statement").get_text(strip=True)


def test_ledger_tells_results_from_expectations(html):
    from sgdbook import registry

    page = parsed(html / "book/reference/ledger.html")
    settled_twins = 0
    for name, row in registry.rows().items():
        anchor = registry.anchor(name).removeprefix("claim-")
        shown = page.find(id=f"row-{anchor}")
        is_open = "open" in shown["class"]
        expected = shown.select_one(".claim-expected")
        assert bool(expected) == is_open, name
        assert not is_open or expected.get_text().startswith("expected: "), name
        says = "formulas reconstructed" in shown.select_one(".claim-source").get_text()
        assert says == (row.source == "meng2020"), name
        if is_open or not row.alias_of:
            assert bool(shown.select_one("dl")) != is_open, name
            continue
        status = shown.select_one(".claim-status")
        assert status.get_text() == f"✓ settled with {row.alias_of}"
        target = status.a["href"].partition("#")[2]
        assert target == registry.anchor(row.alias_of)
        assert not shown.select("dl")
        settled_twins += 1
    assert settled_twins


SHOWN = "() => document.querySelectorAll('.ledger-row:not(.filtered)').length"


def test_ledger_filter(browser, address):
    """By keyboard, on a phone; it remembers nothing and never hides a link's target."""
    from sgdbook import registry

    rows = registry.rows().values()
    exact = sum("exact" in row.verdicts for row in rows)
    with context(browser, 390, "light") as window:
        page = window.new_page()
        page.goto(f"{address}/book/reference/ledger.html", wait_until="load")
        assert page.evaluate(SHOWN) == len(rows)
        page.focus(".ledger-filter [name=status]")
        page.keyboard.press("Tab")
        page.keyboard.type("exact")
        assert page.evaluate(SHOWN) == exact
        said = page.inner_text(".ledger-filter output")
        assert said == f"{exact} of {len(rows)} rows shown"
        counts = []
        for status in ("settled", "open"):
            page.select_option(".ledger-filter [name=status]", status)
            counts.append(page.evaluate(SHOWN))
        assert sum(counts) == exact
        assert all(counts)
        page.evaluate("() => { location.hash = 'row-dm-3' }")
        page.wait_for_function(f"({SHOWN})() === {len(rows)}")
        page.select_option(".ledger-filter [name=status]", "open")
        page.reload(wait_until="load")
        assert page.evaluate(SHOWN) == len(rows)
    with browser.new_context(java_script_enabled=False) as window:
        page = window.new_page()
        page.goto(f"{address}/book/reference/ledger.html", wait_until="load")
        assert not page.is_visible(".ledger-filter")
        assert page.is_visible("#row-dm-3 .claim-statement")


# A formula is in reach if it fits or scrolls, and nothing around it scrolls for it.
REACH = """
() => {
  const wrong = [];
  document.querySelectorAll("details").forEach((e) => { e.open = true; });
  for (const e of document.querySelectorAll(":is(.ledger-row, .claim) mjx-container")) {
    const box = e.getBoundingClientRect();
    const [inner, outer] = [e, e.parentElement].map((x) => getComputedStyle(x));
    const wide = e.scrollWidth > e.clientWidth + 1;
    if (box.right > innerWidth || (wide && inner.overflowX !== "auto"))
      wrong.push(`out of reach: ${e.textContent}`);
    if (e.scrollHeight > e.clientHeight + 1) wrong.push(`cut: ${e.textContent}`);
    if (outer.overflowX !== "visible") wrong.push(`not alone: ${e.textContent}`);
  }
  return wrong;
}
"""


@pytest.mark.parametrize("name", ["reference/ledger", "noise/diffusion-identity"])
def test_wide_formulas_scroll_by_themselves(browser, address, name):
    with context(browser, 390, "light") as window:
        page = window.new_page()
        page.goto(f"{address}/book/{name}.html", wait_until="load")
        page.evaluate(TYPESET)
        assert page.evaluate(REACH) == []


def test_notebooks_for_download_compile(html):
    import nbformat

    found = sorted((html / "download").rglob("*.ipynb"))
    assert found
    for path in found:
        book = nbformat.read(path, as_version=4)
        nbformat.validate(book)
        for cell in book.cells:
            if cell.cell_type == "code":
                try:
                    compile(cell.source, path.stem, "exec")
                except SyntaxError as error:
                    pytest.fail(f"{path.stem}: {error}\n{cell.source}", pytrace=False)
