"""The pictures in OPERATING.md are of the page as it is."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.watch.pages import Page
from tests.watch.screenshots import FOLDER, LOOKS, SHOTS, SHOWN, Look, scene, take_all

LARGEST = 80_000  # bytes


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with scene(tmp_path_factory.mktemp("scene")) as page:
        yield page


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.suffix or "-desk")
def test_every_view_can_be_pictured(page: Page, look: Look, tmp_path: Path) -> None:
    made = take_all(page, tmp_path, look)  # fails where something of a view is not seen
    assert [path.stem for path in made] == [f"{shot.name}{look.suffix}" for shot in SHOTS]
    for path in made:
        with Image.open(path) as picture:
            assert picture.width == look.width
            assert picture.height >= look.height
            grey = np.asarray(picture.convert("L"), int)
        assert grey.max() - grey.min() > 150, "blank"
        assert (np.median(grey) < 100) == look.dark
        assert path.stat().st_size < LARGEST


def test_the_text_shows_the_pictures_that_there_are() -> None:
    text = (FOLDER.parent / "OPERATING.md").read_text()
    shown = re.findall(r"!\[[^]]+\]\(screenshots/([a-z-]+)\.png\)", text)
    assert sorted(shown) == sorted(SHOWN)
    assert {path.stem for path in FOLDER.iterdir()} == set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_a_picture_that_is_kept_is_like_one_made_now(name: str) -> None:
    (look,) = (look for look in LOOKS for shot in SHOTS if f"{shot.name}{look.suffix}" == name)
    path = FOLDER / f"{name}.png"
    assert path.stat().st_size < LARGEST
    with Image.open(path) as picture:
        assert picture.width == look.width
