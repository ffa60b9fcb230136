"""docs/reference/settings.md says what the settings classes say."""

from __future__ import annotations

import pydantic

from services.chassis.config import PREFIX
from tools import settings_docs


def test_the_page_is_fresh() -> None:
    assert settings_docs.TARGET.read_text() == settings_docs.document(), "run `make docs`"


def test_every_setting_of_every_service_is_on_the_page() -> None:
    text = settings_docs.document()

    for service in settings_docs.SERVICES:
        for field in settings_docs.settings_class(service).model_fields:
            assert f"`{PREFIX}{field.upper()}`" in text


def test_a_comment_describes_the_field_below_it_and_no_other() -> None:
    class Settings(pydantic.BaseModel):
        # How fast
        # it goes.
        speed: int = 1
        size: int = 2
        # About nothing.

        colour: str = ""

    assert settings_docs.comments(Settings) == {
        "speed": "How fast it goes.",
        "size": "",
        "colour": "",
    }
