"""Light, dark, or as the system has it: remembered in a cookie, so that a page is right at its first paint."""

from __future__ import annotations

from enum import Enum

from nicegui import ui

COOKIE = "headwater_theme"
COOKIE_SECONDS = 365 * 24 * 3600


class Theme(Enum):
    """What a viewer chose."""

    SYSTEM = "system"
    LIGHT = "light"
    DARK = "dark"

    @property
    def dark(self) -> bool | None:
        """As NiceGUI wants it: None follows the system."""
        return {Theme.SYSTEM: None, Theme.LIGHT: False, Theme.DARK: True}[self]

    @property
    def icon(self) -> str:
        """The icon of the button that changes it."""
        return {Theme.SYSTEM: "brightness_auto", Theme.LIGHT: "light_mode", Theme.DARK: "dark_mode"}[self]

    @property
    def next(self) -> Theme:
        """What the button changes it to."""
        return {Theme.SYSTEM: Theme.LIGHT, Theme.LIGHT: Theme.DARK, Theme.DARK: Theme.SYSTEM}[self]

    @property
    def remember(self) -> str:
        """The script that keeps it."""
        return f"document.cookie = '{COOKIE}={self.value};path=/;max-age={COOKIE_SECONDS};samesite=strict'"


def chosen_theme() -> Theme:
    """What the viewer of this page chose."""
    request = ui.context.client.request
    try:
        return Theme(request.cookies.get(COOKIE, Theme.SYSTEM.value))
    except ValueError:
        return Theme.SYSTEM
