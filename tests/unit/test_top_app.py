"""Keys and layout of `headwater top`, in a terminal of Textual's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from ops.top.app import GroupTable, TopApp
from ops.top.history import ClusterHistory
from ops.top.screens import HelpScreen, NodeScreen
from tests.top_answers import ADDRESSES, answer, following, leading, session
from tests.waiting import until

SIZES = [(80, 24), (140, 40)]


@dataclass
class Stage:
    """An application over a history that the test writes, on a clock that the test turns."""

    history: ClusterHistory
    now: float = 100.0
    app: TopApp = field(init=False)
    pilot: Pilot[None] = field(init=False)

    def hear(self, *, lag: float = 0.002, third: bool = True) -> None:
        self.history.heard(ADDRESSES[0], answer(1, leading(appends=int(self.now) * 70)), self.now)
        self.history.heard(ADDRESSES[1], answer(2, following(lag=lag)), self.now)
        if third:
            self.history.heard(ADDRESSES[2], answer(3, following(lag=0.001)), self.now)
        else:
            self.history.missed(ADDRESSES[2], "connection refused", self.now)
        self.history.read_sessions([session(number, int(self.now) * number) for number in range(40)], self.now)

    async def pass_time(self, seconds: float, **heard: float | bool) -> None:
        self.now += seconds
        self.hear(**heard)  # type: ignore[arg-type] # passed through
        self.app.draw()
        await self.pilot.pause()

    def table(self, name: str) -> list[list[str]]:
        table = self.app.screen_stack[0].query_one(name, DataTable)
        return [[str(cell).strip() for cell in table.get_row_at(row)] for row in range(table.row_count)]

    def column(self, heading: str) -> list[str]:
        table = self.app.screen_stack[0].query_one("#groups", DataTable)
        labels = [str(column.label).strip().removesuffix(" ▾") for column in table.ordered_columns]
        return [row[labels.index(heading)] for row in self.table("#groups")]

    def shown(self, name: str) -> str:
        return str(self.app.screen.query_one(name, Static).visual)


@asynccontextmanager
async def stage(size: tuple[int, int] = (80, 24)) -> AsyncIterator[Stage]:
    subject = Stage(ClusterHistory(ADDRESSES))
    subject.app = TopApp(subject.history, asyncio.Event().wait, clock=lambda: subject.now)
    subject.hear()
    async with subject.app.run_test(size=size) as subject.pilot:
        await subject.pilot.pause()
        yield subject


@pytest.mark.parametrize("size", SIZES)
async def test_everything_is_on_the_screen_and_no_column_is_cut(size: tuple[int, int]) -> None:
    async with stage(size) as subject:
        await subject.pass_time(1)
        assert subject.column("node") == ["node-1", "node-2", "node-3"]
        assert subject.column("position") == ["3:1200"] * 3
        assert subject.column("lag history")[0] == ""
        assert subject.column("lag history")[1] == "▁▁"
        assert "70 appends/s   3 of 3 nodes answer   Raft leader node-1" in subject.shown("#summary")
        assert subject.table("#sessions")[0][:3] == ["39.0", "3,939", "barn"]
        for name in ("#groups", "#sessions"):
            table = subject.app.query_one(name, DataTable)
            assert table.virtual_size.width <= table.size.width, "the table is as wide as its columns"
            assert table.region.bottom <= size[1] - 1, "the keys stand below"
        assert subject.app.query_one("#sessions").size.height >= 5


async def test_a_wide_screen_has_more_columns_and_a_resized_one_changes() -> None:
    async with stage((140, 40)) as subject:
        assert subject.column("appends/s") == ["", "", ""]
        assert "session-39" in subject.table("#sessions")[39]
        table = subject.app.query_one(GroupTable)
        await subject.pilot.resize_terminal(80, 24)
        await until(lambda: not any("appends/s" in str(column.label) for column in table.ordered_columns))


async def test_a_node_that_dies_keeps_its_row_which_says_how_old_it_is() -> None:
    async with stage() as subject:
        await subject.pass_time(30, third=False)
        assert subject.column("state") == ["leading", "following", "not reached"]
        assert subject.column("heard") == ["0 s", "0 s", "30 s"]
        assert "2 of 3 nodes answer" in subject.shown("#summary")


async def test_s_sorts_by_the_next_column_and_the_cursor_stays_on_its_row() -> None:
    async with stage() as subject:
        await subject.pass_time(1, lag=2.0)
        await subject.pilot.press("down", "down")
        await subject.pilot.press("s", "s")
        assert subject.column("node") == ["node-2", "node-3", "node-1"]
        labels = [str(column.label).strip() for column in subject.app.query_one(GroupTable).ordered_columns]
        assert "lag ▾" in labels
        assert subject.app.query_one(GroupTable).cursor_row == 1


async def test_p_holds_the_picture_and_lets_it_go_on() -> None:
    async with stage() as subject:
        await subject.pilot.press("p")
        await subject.pass_time(60, lag=9.0)
        assert subject.column("lag")[1] == "2 ms"
        assert subject.column("heard") == ["0 s", "0 s", "0 s"]
        assert "PAUSED 60.0 s ago" in subject.shown("#summary")
        await subject.pilot.press("p")
        assert subject.column("lag")[1] == "9.0 s"
        assert "PAUSED" not in subject.shown("#summary")


@pytest.mark.parametrize("size", SIZES)
async def test_enter_shows_the_chosen_node_in_full_and_escape_closes_it(size: tuple[int, int]) -> None:
    async with stage(size) as subject:
        await subject.pilot.press("down", "enter")
        await subject.pilot.pause()
        assert isinstance(subject.app.screen, NodeScreen)
        assert "node-2   heard 0 ms ago" in subject.shown("#text")
        assert "group 0: epoch 3 to node-1" in subject.shown("#text")
        await subject.pass_time(2, lag=4.0)
        assert "behind by 400 transactions, 4.0 s" in subject.shown("#text")
        await subject.pilot.press("escape")
        assert not isinstance(subject.app.screen, NodeScreen)


async def test_a_question_mark_shows_the_keys_and_columns() -> None:
    async with stage() as subject:
        await subject.pilot.press("question_mark")
        assert isinstance(subject.app.screen, HelpScreen)
        for said in ("pause", "lag history", "Enter"):
            assert said in subject.shown("#text")
        await subject.pilot.press("escape", "q")
    assert subject.app.return_code == 0


async def test_a_picture_that_is_due_while_the_screen_comes_or_goes_is_left_out() -> None:
    async with stage() as subject:
        await subject.app.screen.query("*").remove()
        subject.app.draw()
    assert subject.app.return_code is None


async def test_a_failure_of_what_listens_ends_the_application() -> None:
    async def fails() -> None:
        raise RuntimeError("the ear is deaf")

    app = TopApp(ClusterHistory(ADDRESSES), fails)
    with pytest.raises(Exception, match="the ear is deaf"):
        async with app.run_test() as pilot:
            await pilot.pause(0.5)
