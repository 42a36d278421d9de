"""What the benchmark of training says of the times it is given."""

from plait.benchmarks.training_speed import BARE, WAYS, Timing, by_hand, main, table


def test_all_ways_are_run_in_turn_and_compared(capsys):
    asked = []

    def train(job, num_workers):
        asked.append(num_workers)
        return by_hand(job)

    main(train, ["--seconds", "0", "--rounds", "2", "--batch", "2"])
    assert asked == [1, 2, 1, 2]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "fine-tuning, L = 50, batch 2, 2 runs of 0 s each"
    assert [line.split("  ")[0] for line in lines[2:5]] == list(WAYS)
    assert all(line.split()[-4] == "4" for line in lines[2:5])


def test_times_are_read_from_the_second_update_on_and_ratios_from_sums():
    curves = {"wall": [(1, 103.0), (2, 104.0), (3, 106.0)], "cpu": [(1, 5.0), (2, 5.5), (3, 6.0)]}
    timing = Timing.read(curves, 100.0)
    assert (timing.updates, timing.wall, timing.cpu, timing.start_up) == (2, 3.0, 1.0, 2.0)
    _, one, two = WAYS
    text = table(
        {BARE: [Timing(10, 20.0, 10.0, 1.0)], one: [Timing(10, 22.0, 10.5, 9.0)], two: [Timing(5, 6.0, 3.0, 8.0)]}
    )
    assert "Ray Train over the bare loop: wall +10.0%, CPU +5.0%" in text
    assert "2 workers over 1: wall 1.83x, CPU 1.75x" in text
