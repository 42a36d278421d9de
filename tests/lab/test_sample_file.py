from pathlib import Path

from plait.design.alphabets import DNA
from plait.lab.scenarios import find_scenario
from plait.lab.tables import read_measurements


def test_the_sample_table_of_the_readme_is_the_demos_offline_set():
    table = read_measurements(Path(__file__).parents[2] / "notebooks" / "splice_sites.csv", DNA)
    offline = find_scenario("splice").offline_readings(percentile=90, size=2_000, seed=0)
    assert table.readings.sequences == offline.sequences
    assert table.readings.values.tolist() == offline.values.tolist()
