"""Where a home keeps its things and how it runs: a file in the home, environment variables, arguments."""

from plait.settings.settings import SETTINGS_FILE, Settings, load_settings, redacted, save_settings

__all__ = ["SETTINGS_FILE", "Settings", "load_settings", "redacted", "save_settings"]
