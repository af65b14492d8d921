from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fedsys.edge.report.boards import BOARDS, Board, fits


def test_names_of_boards_are_told_apart() -> None:
    assert len({board.name for board in BOARDS}) == len(BOARDS) >= 12


def test_a_model_fits_where_flash_and_ram_are_enough() -> None:
    board = Board("small", "Cortex-M0", 1000, 100)
    assert [fit.fits for fit in fits(1000, 100, [board])] == [True]
    assert [fit.fits for fit in fits(1001, 100, [board])] == [False]
    assert [fit.fits for fit in fits(1000, 101, [board])] == [False]


def test_shares_are_of_the_board() -> None:
    (fit,) = fits(250, 30, [Board("small", "Cortex-M0", 1000, 100)])
    assert (fit.flash, fit.ram) == (0.25, 0.3)


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_what_fits_a_board_fits_every_larger_one(flash: int, ram: int) -> None:
    found = fits(flash, ram)
    for small in found:
        for large in found:
            if (
                small.board.flash <= large.board.flash
                and small.board.ram <= large.board.ram
                and small.fits
            ):
                assert large.fits


def test_a_blue_pill_holds_20_kb_of_ram() -> None:
    (board,) = [board for board in BOARDS if "Blue Pill" in board.name]
    assert (board.flash, board.ram) == (65536, 20480)
