"""What pages of the lab may hold at a time: groups and their pages, connections; and streams that claim many pages."""

import contextlib
import time
import urllib.request

import pytest

import saved_streams
from patience import NEVER
from services.lab import replays as shown
from services.lab.replays import MAX_REPLAYS, MOST_PAGES, Replays
from services.lab.web import MOST_CONNECTIONS
from test_standard import until
from test_web import KIND, ask, events_of, page, replays  # noqa: F401
from ultrafolio.errors import InputError
from ultrafolio.model.layout import blank
from ultrafolio.state import validate
from ultrafolio.state.events import Made, encode
from ultrafolio.state.roles import PARTS
from ultrafolio.state.sections import encode_meta, meta_of_state, split
from ultrafolio.state.store import Event

LARGE = 262_144


def laid_out(pages, *, whole=True):
    """The entries of a group of so many pages; whole: with the sections of each part."""
    state = blank(pages, 1, 1)
    sections = split(state) if whole else {}
    mine = {part.name: {name: sections[name] for name in part.of("s390").writes if name in sections} for part in PARTS}
    meta = encode_meta(meta_of_state(state, [], "a bomb"))
    made = [Made(role, found, meta if role == "host" else b"") for role, found in mine.items()]
    return [Event(f"{at}-1", encode(entry)) for at, entry in enumerate(made, 1)]


@contextlib.contextmanager
def viewed(lab, saved, groups):
    """The replays of groups that pages show."""
    try:
        yield [lab.view(saved, group) for group in groups]
    finally:
        for group in groups:
            lab.left(saved, group)


def read(replay):
    until(lambda: replay.complete)
    return replay


@pytest.fixture
def lab(tmp_path):
    return Replays(None, tmp_path)


def test_some_bytes_are_no_group_of_many_pages(lab):
    name, _ = lab.save(validate.saved([("bomb", laid_out(LARGE, whole=False)), ("small", laid_out(2))]))
    bomb, small = (read(lab.replay(name, group)) for group in ("bomb", "small"))
    assert "section" in bomb.error.text and bomb.pages == 0 and bomb.base is None
    assert small.error is None and small.base.pages == 2


def test_pages_show_so_many_groups_and_the_others_leave_room(lab):
    groups = [f"g{number}" for number in range(MAX_REPLAYS + 2)]
    name, _ = lab.save(validate.saved([(group, laid_out(2)) for group in groups]))
    with viewed(lab, name, groups[:MAX_REPLAYS]) as first:
        with pytest.raises(InputError, match="groups that pages show"):
            lab.replay(name, groups[-1])
        assert [lab.replay(name, group) for group in groups[:MAX_REPLAYS]] == first
        lab.left(name, groups[3])
        lab.view(name, groups[-1])
        assert lab.replay(name, groups[2]) is first[2]
        with pytest.raises(InputError, match="groups that pages show"):
            lab.replay(name, groups[3])
        lab.left(name, groups[-1])
        lab.view(name, groups[3])
    assert not lab._viewers and len(lab._replays) == len(lab._last_shown) == MAX_REPLAYS


def test_the_pages_of_all_replays_have_a_bound(lab, monkeypatch):
    monkeypatch.setattr(shown, "MOST_PAGES", 10)
    name, _ = lab.save(validate.saved([(group, laid_out(4)) for group in "abc"]))
    with viewed(lab, name, "ab") as (first, second):
        assert read(first).error is None and read(second).error is None
        third = read(lab.replay(name, "c"))
        assert "pages of all groups that are shown" in third.error.text and third.base is None
    del lab._replays[name, "c"]
    assert read(lab.replay(name, "c")).error is None, "nobody shows the others any more"
    assert sum(one.pages for one in lab._replays.values()) <= 10


def test_a_page_that_ends_shows_nothing(page, replays):  # noqa: F811
    _, body = ask(f"{page}/saved", saved_streams.saved({"mine": laid_out(2)}), **KIND)
    name = body.decode().split('"saved":"')[1][:16]
    events_of(f"{page}/live?group=mine&saved={name}", "base")
    until(lambda: not replays._viewers)
    events_of(f"{page}/live?group=none&saved={name}", "refused")
    until(lambda: not replays._viewers and ("none", name) not in replays._last_shown)


def test_connections_to_the_page_have_a_bound(page):  # noqa: F811
    with contextlib.ExitStack() as stack:
        answered = []
        for _ in range(MOST_CONNECTIONS):
            live = stack.enter_context(contextlib.closing(urllib.request.urlopen(f"{page}/live", timeout=NEVER)))
            answered.append(live.status)
            if len(answered) == MOST_CONNECTIONS - 1:
                break
        assert set(answered) == {200}
        assert ask(f"{page}/")[0] == 503
    end = time.monotonic() + NEVER
    while ask(f"{page}/")[0] != 200:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_largest_group_has_room():
    assert LARGE * 8 <= MOST_PAGES
