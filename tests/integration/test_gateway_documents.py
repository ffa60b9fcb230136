"""Documents that everyone may read: the start page, for people and for programs, and the API's."""

from __future__ import annotations

import re

import pytest

from tests.integration.gateway import Gateway

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (BROWSER, "text/html"),
        ("text/html", "text/html"),
        ("application/json;q=0.5, TEXT/HTML ; q=0.6", "text/html"),
        ("*/*", "application/json"),
        ("", "application/json"),
        ("application/json", "application/json"),
        ("text/html;q=0.5, application/json", "application/json"),
        ("text/html;q=0", "application/json"),
        ("text/html;q=x", "application/json"),
    ],
)
async def test_the_start_page_is_html_for_browsers_and_json_for_others(
    gateway: Gateway, accept: str, kind: str
) -> None:
    answer = await gateway.http.get("/", headers={"accept": accept})

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)
    assert "accept" in answer.headers.get_list("vary", split_commas=True)


async def test_both_forms_of_the_start_page_lead_to_the_same_places(gateway: Gateway) -> None:
    page = (await gateway.http.get("/", headers={"accept": BROWSER})).text
    plain = (await gateway.http.get("/")).json()

    links = set(re.findall(r'href="([^"]+)"', page))
    commands = re.findall("<pre>", page)
    assert links == set(plain["links"].values())
    assert len(commands) == len(plain["try"]) == 3
    for link in links:
        assert (await gateway.http.get(link)).status_code == 200
    assert all(guide.rpartition("/")[2] in page for guide in plain["guides"])


async def test_the_start_page_takes_reading_methods_alone(gateway: Gateway) -> None:
    head = await gateway.http.head("/", headers={"accept": BROWSER})
    options = await gateway.http.options("/")
    post = await gateway.http.post("/", content=b"{}")

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == "text/html; charset=utf-8"
    assert options.headers["allow"] == post.headers["allow"] == "GET, HEAD, OPTIONS"
    assert post.status_code == 405


async def test_a_page_may_load_nothing_from_elsewhere(gateway: Gateway) -> None:
    for path in ("/", "/docs"):
        answer = await gateway.http.get(path, headers={"accept": BROWSER})

        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-frame-options"] == "DENY"
        assert not re.search(r"(?:src|href)=.?https?:", answer.text)
