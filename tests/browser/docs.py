"""The API page in a real browser: python3 tests/browser/docs.py http://127.0.0.1:8484

Needs a running server, Chromium and Playwright for Python (apt: chromium, pip: playwright); CHROMIUM
names another program. It only looks, and sends no request that changes anything.
"""

import os
import sys
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

METHODS = ("get", "post", "put", "patch", "delete")

# Sums the shifts of what was already drawn. Runs before the page's own scripts.
WATCH_SHIFTS = """
  window.shifts = 0;
  new PerformanceObserver((list) => list.getEntries().forEach((entry) => (window.shifts += entry.value)))
    .observe({ type: 'layout-shift', buffered: true });
"""


class Visit:
    """A page that is open in a window of its own, and what went wrong on it."""

    def __init__(self, browser: Browser, base: str, **window) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.context = browser.new_context(**window)
        self.page: Page = self.context.new_page()
        self.page.add_init_script(WATCH_SHIFTS)
        # Violations of the content security policy are told on the console as well.
        self.page.on("console", lambda m: m.type in ("error", "warning") and self.complaints.append(m.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(f"{base}/")
        self.page.wait_for_selector("main[aria-busy=true]", state="detached")

    def close(self, base: str) -> None:
        origin = urlsplit(base)[:2]
        foreign = [url for url in self.requests if not url.startswith("blob:") and urlsplit(url)[:2] != origin]
        assert not foreign, f"requests left the origin: {foreign}"
        assert not self.complaints, f"the browser complained: {self.complaints}"
        self.context.close()


def operations(document: dict) -> set[tuple[str, str]]:
    paths = document["paths"].items()
    return {(method.upper(), path) for path, item in paths for method in METHODS if method in item}


def listed(page: Page, row: str, method: str, path: str) -> list[tuple[str, str]]:
    rows = page.locator(row).all()
    return [(one.locator(method).first.inner_text(), one.locator(path).first.text_content() or "") for one in rows]


def the_page_runs_under_a_strict_policy(browser: Browser, base: str) -> None:
    visit = Visit(browser, base)
    policy = visit.page.request.get(f"{base}/docs").headers.get("content-security-policy", "")
    assert "default-src 'none'" in policy and "unsafe" not in policy, f"the policy is {policy!r}"
    visit.close(base)


def every_operation_is_listed(browser: Browser, base: str) -> None:
    visit = Visit(browser, base)
    shifts = visit.page.evaluate("window.shifts")
    assert shifts < 0.01, f"the page moved while it was loading: {shifts}"
    expected = operations(visit.page.request.get(f"{base}/openapi.json").json())
    assert expected, "the document has no operation"
    contents = listed(visit.page, "#toc a:has(.method)", ".method", ".path")
    cards = listed(visit.page, "details.op", "summary .method", "summary h3")
    for found in (contents, cards):
        assert sorted(found) == sorted(expected), f"{sorted(found)} instead of {sorted(expected)}"
    for card in visit.page.locator("details.op").all():
        card.evaluate("card => (card.open = true)")
        assert card.locator(".side .snippet code").first.inner_text().startswith("curl "), "no curl example"
        assert card.locator("form button[type=submit]").count() == 1, "no form"
    visit.close(base)


def a_request_shows_its_answer(browser: Browser, base: str) -> None:
    visit = Visit(browser, base)
    # By keyboard alone: the link in the contents opens the card, Enter on the button sends.
    visit.page.locator("#toc a[href='#get-healthz']").press("Enter")
    card = visit.page.locator("#get-healthz")
    card.locator("form button[type=submit]").press("Enter")
    card.locator(".answer-line .tag").wait_for()
    assert card.locator(".answer-line .tag").inner_text().startswith("200"), card.locator(".answer-line").inner_text()
    assert card.locator(".answer .snippet code").inner_text().strip(), "the body is not shown"
    visit.close(base)


def a_search_keeps_what_it_names(browser: Browser, base: str) -> None:
    visit = Visit(browser, base)
    visit.page.locator("#filter").fill("healthz get")
    visible = visit.page.locator("#toc a:visible .path").all_inner_texts()
    assert visible == ["/healthz"], visible
    visit.close(base)


def nothing_hangs_over_on_a_phone(browser: Browser, base: str) -> None:
    for scheme in ("light", "dark"):
        visit = Visit(browser, base, viewport={"width": 360, "height": 740}, color_scheme=scheme, has_touch=True)
        visit.page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        width = visit.page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, f"the page is {width} px wide"
        visit.page.locator(".toc-open").tap()
        visit.page.locator("#toc a[href='#get-healthz']").tap()
        visit.page.locator("#toc").wait_for(state="hidden")
        visit.close(base)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: docs.py BASE_URL")
    base = sys.argv[1].rstrip("/")
    checks = [
        the_page_runs_under_a_strict_policy,
        every_operation_is_listed,
        a_request_shows_its_answer,
        a_search_keeps_what_it_names,
        nothing_hangs_over_on_a_phone,
    ]
    with sync_playwright() as playwright:
        chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        # The sandbox of Chromium refuses to run for root, as in a container.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        for check in checks:
            check(browser, base)
            print(f"ok      {check.__name__}")
        browser.close()
    print(f"{len(checks)} passed, 0 failed")


if __name__ == "__main__":
    main()
