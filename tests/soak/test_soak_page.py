"""The page on faults shows what the soak's JSON has."""

import soak_page


def test_the_page_has_the_figures_of_the_soak() -> None:
    page = soak_page.PAGE.read_text()
    assert page == soak_page.with_tables(page, soak_page.REPOSITORY / "docs" / "soak-pretraining.json")
