import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_folder_platform_does_not_shadow_the_standard_library():
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert ROOT not in Path(platform.__file__).parents


def test_no_room_for_leftovers():
    names = {path.name for path in (ROOT / "platform").rglob("*") if path.is_dir()}
    assert not names & {"utils", "core", "common", "helpers"}


def test_imports_go_down_only():
    result = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
